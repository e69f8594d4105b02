"""What a run tells of its machine: the same for one of its own and for a long-lived one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sample_launches import sample_launch
from sample_plans import sample_plan

from vmrunner.config.units import Size
from vmrunner.run.seat import MachineFacts


def test_the_facts_are_those_of_the_machine_as_it_is_started() -> None:
    plan = replace(sample_plan(), accelerator="kvm", cpu_model="host", cpus=3, memory=Size.parse("768M"))
    facts = MachineFacts.of(plan, name="db", image="debian", accelerator_reason="it is there", qemu="7.2.22")
    assert facts == MachineFacts("db", "debian", "kvm", "it is there", "host", 3, 768 << 20, "7.2.22")
    assert type(facts.memory) is int


def test_the_facts_of_a_launch_are_known_before_it_begins(tmp_path: Path) -> None:
    facts = sample_launch(tmp_path, cpus=4, memory=Size.parse("2G")).facts
    assert facts == MachineFacts(
        "vmrunner-1", "debian", "tcg", "TCG was asked for", "max", 4, 2 << 30, "7.2.22"
    )
