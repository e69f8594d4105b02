"""Machine type, accelerator and CPUs."""

from __future__ import annotations

from vmrunner.machine.hardware.memory import MEMORY_ID
from vmrunner.machine.hardware.words import escape, option
from vmrunner.machine.plan import MachinePlan


def machine_arguments(plan: MachinePlan) -> list[str]:
    """Machine type, accelerator and CPUs, and nothing that QEMU would add by itself.

    The type is named with its version: a saved state fits that version only.
    """
    # Translated code may take 256 MiB; by default it is 1 GiB for each machine, and no faster (measured).
    tcg = option("tcg", thread="multi", **{"tb-size": "256"})
    # Of NUMA nodes each has a backend of its own.
    backend = "" if plan.numa_nodes else f",memory-backend={MEMORY_ID}"
    accelerator = tcg if plan.accelerator == "tcg" else "kvm"
    return [
        "-name", option(f"guest={escape(plan.name)}"),
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-machine", f"{plan.machine_type},vmport=off{backend}",
        "-accel", accelerator,
        "-cpu", ",".join((plan.cpu_model, *plan.cpu_features)),
        "-smp", smp(plan),
    ]  # fmt: skip


def smp(plan: MachinePlan) -> str:
    """How many vCPUs there are and can be, and how they are laid out.

    Hot-plugging one kills QEMU under TCG (7.2, measured), so there all are present, and the guest keeps those offline
    that it is not to use.
    """
    present = plan.most_cpus if plan.accelerator == "tcg" else plan.cpus
    words = [str(present)]
    if plan.most_cpus > present:
        words.append(f"maxcpus={plan.most_cpus}")
    if plan.cpu_topology:
        layout = plan.cpu_topology
        words += [f"sockets={layout.sockets}", f"cores={layout.cores}", f"threads={layout.threads}"]
    return ",".join(words)
