"""Machine type, accelerator, CPUs and memory."""

from __future__ import annotations

from vmrunner.machine.hardware.words import escape, memory_size, option
from vmrunner.machine.plan import MachinePlan

MEMORY_ID = "ram"


def machine_arguments(plan: MachinePlan) -> list[str]:
    """Machine type, accelerator and CPUs, and nothing that QEMU would add by itself.

    The type is named with its version: a saved state fits that version only.
    """
    # Translated code may take 256 MiB; by default it is 1 GiB for each machine, and no faster (measured).
    tcg = option("tcg", thread="multi", **{"tb-size": "256"})
    accelerator = tcg if plan.accelerator == "tcg" else "kvm"
    return [
        "-name", option(f"guest={escape(plan.name)}"),
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-machine", f"{plan.machine_type},vmport=off,memory-backend={MEMORY_ID}",
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


def memory_arguments(plan: MachinePlan) -> list[str]:
    """The guest's memory, always a backend of the same name: saved state refers to it by that.

    QEMU opens the file of a private mapping for writing too (7.2, measured), but does not write to it. Huge pages come
    from a memfd, which needs no mount.
    """
    size = memory_size(plan.memory)
    prealloc = {"prealloc": "on"} if plan.prealloc else {}
    if plan.hugepages != "off":
        backend = option(
            "memory-backend-memfd", id=MEMORY_ID, size=size, share="off", hugetlb="on",
            hugetlbsize=plan.hugepages, **prealloc,
        )  # fmt: skip
    elif plan.memory_file is None:
        backend = option("memory-backend-ram", id=MEMORY_ID, size=size, **prealloc)
    else:
        share = "on" if plan.memory_file.shared else "off"
        path = {"mem-path": plan.memory_file.path}
        backend = option("memory-backend-file", id=MEMORY_ID, size=size, share=share, **path, **prealloc)
    return ["-m", f"size={size}", "-object", backend]
