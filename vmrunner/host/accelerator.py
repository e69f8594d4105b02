"""Which accelerator a machine gets, decided by proof: KVM, KVM with a safer CPU model, else TCG.

The choice is remembered until the computer restarts or QEMU or /dev/kvm changes.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from vmrunner.errors import HostError
from vmrunner.events import Emit, Note, phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.paths import cache_dir
from vmrunner.host.probe import Attempt, Kind, run_probe
from vmrunner.host.qemu import Qemu

log = logging.getLogger(__name__)

KVM_DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CPU_INFO = Path("/proc/cpuinfo")

KVM_CPU_MODELS = ("host", "host,-arch-capabilities", "qemu64")
"""In the order tried. `host` has every feature. Some kernels let QEMU read the MSR 0x10a (arch-capabilities) but
not set it, which aborts `host`; leaving it out costs only the guest's knowledge of which mitigations it may skip.
`qemu64` asks for nothing beyond the first 64-bit processors. (`max` is `host` under KVM.)"""

TCG_CPU_MODEL = "max"
"""All that QEMU can emulate, so that no test binary meets an instruction it lacks."""

QUICK_SECONDS = 0.5
"""A KVM probe quicker than this spent its time starting QEMU: hardware runs the ROM in about 0.01 s."""

SLOWDOWN = 2.0
"""KVM that takes this many times as long as TCG for the same ROM is software KVM, and loses."""


@dataclass(frozen=True)
class Accelerator:
    """The accelerator and CPU model for QEMU (`-accel kind -cpu cpu_model`), and why."""

    kind: Kind
    cpu_model: str
    reason: str
    """One sentence for people, without a full stop: why this one and not a faster one."""
    proof: str
    """What the probe that decided saw."""
    attempts: tuple[Attempt, ...]
    """Every probe made, in order."""


def choose_accelerator(
    requested: Literal["auto", "kvm", "tcg"],
    cpu_model: str = "auto",
    *,
    qemu: Qemu,
    emit: Emit,
    deadline: Deadline,
    fresh: bool = False,
) -> Accelerator:
    """The fastest accelerator that is proven to run a guest here, with a CPU model it was proven with.

    A `cpu_model` other than `auto` is probed as it is. `requested` other than `auto` is held to: raises HostError
    where it does not work, and where nothing does; RunTimeout where the deadline passes. With `fresh` the proof
    is made anew, whatever is remembered.
    """
    question = f"{requested} {cpu_model}"
    circumstances = _circumstances(qemu)
    chosen = None if fresh else _recall(question, circumstances)
    if chosen is None:
        with phase(emit, "accelerator", "Trying which accelerator runs a guest here") as current:
            chosen = _choose(requested, cpu_model, qemu, deadline)
            current.text = f"{chosen.kind}, CPU model {chosen.cpu_model}"
        _remember(question, circumstances, chosen)
    level: Literal["info", "warning"] = "warning" if requested == "auto" and chosen.kind == "tcg" else "info"
    emit(Note(f"accelerator {chosen.kind}, CPU model {chosen.cpu_model}: {chosen.reason}", level))
    return chosen


def kvm_obstacle(device: Path | None = None) -> str | None:
    """Why /dev/kvm cannot even be opened, with what to do about it; None where it opens."""
    device = device or KVM_DEVICE
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return (
            f"{device} does not exist (virtualization is off in the firmware, or this is a virtual machine)"
        )
    except PermissionError:
        return f"{device} may not be opened (`sudo usermod -aG kvm $USER`, then log in again)"
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    return None


def _choose(requested: str, cpu_model: str, qemu: Qemu, deadline: Deadline) -> Accelerator:
    if requested == "tcg":
        return _use_tcg("TCG was asked for", cpu_model, (), qemu, deadline)
    obstacle = kvm_obstacle()
    attempts = () if obstacle else _try_kvm(cpu_model, qemu, deadline)
    if attempts and attempts[-1].works:
        return _weigh_kvm(requested, cpu_model, attempts, qemu, deadline)
    why = obstacle or _why_kvm_failed(attempts)
    if requested == "kvm":
        raise HostError(
            f"KVM was asked for and does not work: {why}",
            hint="`--accel auto` takes TCG (emulation) where KVM does not work",
            details=_listing(attempts),
        )
    return _use_tcg(why, cpu_model, attempts, qemu, deadline)


def _try_kvm(cpu_model: str, qemu: Qemu, deadline: Deadline) -> tuple[Attempt, ...]:
    """Probe CPU models until one works; the last attempt is the one that counts."""
    attempts: list[Attempt] = []
    for model in KVM_CPU_MODELS if cpu_model == "auto" else (cpu_model,):
        attempts.append(run_probe(qemu, "kvm", model, deadline=deadline))
        if attempts[-1].works:
            break
    return tuple(attempts)


def _weigh_kvm(
    requested: str, cpu_model: str, attempts: tuple[Attempt, ...], qemu: Qemu, deadline: Deadline
) -> Accelerator:
    """Take KVM, unless TCG runs the same ROM much faster.

    A slow proof is repeated first: the first start may have waited for QEMU to come from disk.
    """
    proof = attempts[-1]
    if requested == "auto" and proof.seconds > QUICK_SECONDS:
        again = run_probe(qemu, "kvm", proof.cpu_model, deadline=deadline)
        attempts = (*attempts, again)
        proof = min(proof, again, key=lambda attempt: attempt.seconds if attempt.works else float("inf"))
    if requested == "auto" and proof.seconds > QUICK_SECONDS:
        emulated = run_probe(qemu, "tcg", _tcg_model(cpu_model), deadline=deadline)
        attempts = (*attempts, emulated)
        if emulated.works and proof.seconds > SLOWDOWN * emulated.seconds:
            reason = (
                f"KVM works but is slower than emulation ({proof.seconds:.2g} s for the test guest"
                f" against {emulated.seconds:.2g} s){_software_kvm()}"
            )
            return Accelerator("tcg", emulated.cpu_model, reason, emulated.saw, attempts)
    reason = f"KVM is proven to work (test guest done in {proof.seconds:.2g} s)"
    failed = [attempt for attempt in attempts if not attempt.works]
    if failed:
        reason += f"; CPU model {failed[0].cpu_model} did not: {failed[0].saw}"
    return Accelerator("kvm", proof.cpu_model, reason, proof.saw, attempts)


def _use_tcg(
    reason: str, cpu_model: str, attempts: tuple[Attempt, ...], qemu: Qemu, deadline: Deadline
) -> Accelerator:
    """TCG, which has to prove itself too; `reason` says why it is not KVM."""
    attempt = run_probe(qemu, "tcg", _tcg_model(cpu_model), deadline=deadline)
    attempts = (*attempts, attempt)
    if attempt.works:
        return Accelerator("tcg", attempt.cpu_model, reason, attempt.saw, attempts)
    hint = f"`{qemu.path} -accel help` should list tcg; `{qemu.path} -cpu help` lists the CPU models"
    raise HostError(
        f"no accelerator runs a guest with CPU model {attempt.cpu_model} here: {attempt.saw}",
        hint=hint,
        details=f"{reason}\n{_listing(attempts)}",
    )


def _tcg_model(cpu_model: str) -> str:
    return TCG_CPU_MODEL if cpu_model == "auto" else cpu_model


def _why_kvm_failed(attempts: tuple[Attempt, ...]) -> str:
    """The most telling attempt is the last: the safest CPU model, which got furthest."""
    return f"{KVM_DEVICE} opens but no guest runs on it{_software_kvm()}: {attempts[-1].saw}"


def _software_kvm() -> str:
    """An explanation, never a test: KVM without vmx or svm is a kernel module that emulates them."""
    try:
        flags = set(CPU_INFO.read_text().split())
    except OSError:
        return ""
    return "" if flags & {"vmx", "svm"} else ", the processor shows neither vmx nor svm"


def _listing(attempts: tuple[Attempt, ...]) -> str | None:
    lines = [f"{one.kind} {one.cpu_model} ({one.seconds:.2g} s): {one.saw}" for one in attempts]
    return "\n".join(lines) or None


def _memory() -> Path:
    return cache_dir() / "accelerator.json"


def _circumstances(qemu: Qemu) -> dict[str, Any]:
    """All that a remembered choice rests on, as JSON has it."""
    return {
        "format": 1,
        "boot": BOOT_ID.read_text().strip() if BOOT_ID.exists() else None,
        "qemu": [str(qemu.path), qemu.version, qemu.path.stat().st_mtime_ns],
        "kvm": kvm_obstacle() or KVM_DEVICE.stat().st_ctime_ns,
        "candidates": [*KVM_CPU_MODELS, TCG_CPU_MODEL],
    }


def _recall(question: str, circumstances: dict[str, Any]) -> Accelerator | None:
    """What was chosen before under the same circumstances; None where that is unknown or unreadable."""
    try:
        known = json.loads(_memory().read_text())
        if known["circumstances"] != circumstances:
            return None
        return _from_json(known["choices"][question])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("no remembered accelerator: %r", error)
        return None


def _from_json(data: dict[str, Any]) -> Accelerator:
    """Raises TypeError, KeyError or ValueError where `data` is not what `asdict` wrote."""
    attempts = tuple(Attempt(**attempt) for attempt in data["attempts"])
    chosen = replace(Accelerator(**data), attempts=attempts)
    if chosen.kind not in {"kvm", "tcg"}:
        raise ValueError(f"not an accelerator: {chosen.kind!r}")
    texts = [getattr(chosen, one.name) for one in fields(chosen) if one.name != "attempts"]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("an accelerator's facts are texts")
    return chosen


def _remember(question: str, circumstances: dict[str, Any], chosen: Accelerator) -> None:
    """Keep the choice beside those made under the same circumstances; without a cache, go on without."""
    try:
        try:
            known = json.loads(_memory().read_text())
        except (OSError, ValueError):
            known = {}
        same = isinstance(known, dict) and known.get("circumstances") == circumstances
        choices = known.get("choices") if same else None
        choices = {**(choices if isinstance(choices, dict) else {}), question: asdict(chosen)}
        write_atomically(
            _memory(), json.dumps({"circumstances": circumstances, "choices": choices}, indent=1)
        )
    except OSError as error:
        log.warning("the accelerator's choice could not be remembered: %s", error)
