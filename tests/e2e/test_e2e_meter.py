"""What a guest says of its memory during a run, and what becomes of it in the report."""

from __future__ import annotations

from typing import Any

from command_line import CommandLine

# Without the image's rule that ends whatever needs more memory than there is (images/guest/usr/lib/tmpfiles.d).
SWAP = (
    "echo 0 >/sys/kernel/mm/lru_gen/min_ttl_ms; fallocate -l 512M /root/swap; chmod 600 /root/swap; "
    "mkswap -q /root/swap; swapon /root/swap; "
)
# 300 MB, touched page by page again and again for 25 s.
TOUCH = (
    "perl -e 'my @all; push(@all, chr($_ % 256) x 1000000) for 1 .. 300; my $end = time + 25; "
    "while (time < $end) { for my $one (@all) { select(undef, undef, undef, 0.01); "
    "for (my $at = 0; $at < 1000000; $at += 4096) { substr($one, $at, 1) = q(x) } } }'"
)


def test_a_guest_that_swaps_is_told_from_a_slow_suite(vmrunner: CommandLine, copied_crate: Any) -> None:
    flags = ("--memory", "320M", "--start", "booted", "--env", f"SCRIPT={SWAP}{TOUCH}")
    done = vmrunner.run("test", copied_crate("scripted"), *flags)
    assert done.code == 0, done.stderr
    assert "bottleneck: the guest was swapping" in done.stderr
    usage = vmrunner.only_run.report["usage"]
    assert "`--memory` gives it more" in usage["bottleneck"]
    assert max(one["guest_swapped"] or 0 for one in usage["samples"]) > 64 << 20
    assert max(one["guest_stalled_percent"] or 0 for one in usage["samples"]) > 20
    vmrunner.assert_nothing_left(vmrunner.only_run)


def test_a_guest_that_has_enough_says_so(vmrunner: CommandLine, copied_crate: Any) -> None:
    done = vmrunner.run("test", copied_crate("scripted"), "--env", "SCRIPT=sleep 7")
    assert done.code == 0, done.stderr
    samples = vmrunner.only_run.report["usage"]["samples"]
    assert samples[0]["guest_available"] is None
    assert samples[-1]["guest_available"] > 1 << 30
    assert samples[-1]["guest_kills"] == 0
    # What the guest is asked over, if nothing else.
    assert samples[-1]["guest_received_bytes_per_second"] > 10
    assert samples[-1]["guest_sent_bytes_per_second"] > 10
    # The pages of the template are the other's too where there is one; alone, they are all this machine's part.
    assert 64 << 20 < samples[-1]["pss"] <= samples[-1]["rss"] + (1 << 20)
    assert samples[-1]["shared"] is not None
    assert "memory" not in (vmrunner.only_run.report["usage"]["bottleneck"] or "")
