"""vmrunner.yaml: where it is found, how it is read, and what is refused with which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.config.layer import Problem
from vmrunner.config.yaml_file import file_layer, find_file
from vmrunner.errors import ConfigError, exit_code_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vmrunner.yaml"


def values_of(file: Path, text: str) -> dict[str, object]:
    file.write_text(text)
    layer = file_layer(file, name="vmrunner.yaml")
    assert layer.problems == []
    return layer.values


def problems_of(file: Path, text: str) -> list[Problem]:
    file.write_text(text)
    layer = file_layer(file, name="vmrunner.yaml")
    layer.check()
    return layer.problems


def refusal(file: Path, data: str | bytes) -> ConfigError:
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ConfigError) as caught:
        file_layer(file, name="vmrunner.yaml")
    assert exit_code_of(caught.value) == 2
    return caught.value


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~", "{}", "null\n"])
def test_empty_file_sets_nothing(file: Path, text: str) -> None:
    assert values_of(file, text) == {}


def test_scalars_stay_text(file: Path) -> None:
    text = "env: {A: on, B: 08, C: 1e3, D: 2026-01-01, E: 1.10, F: no}\ncpu-model: 0x10\n"
    assert values_of(file, text) == {
        "env": {"A": "on", "B": "08", "C": "1e3", "D": "2026-01-01", "E": "1.10", "F": "no"},
        "cpu_model": "0x10",
    }


def test_null_is_told_from_empty_text(file: Path) -> None:
    text = "memory:\npackages: ~\ndisk: null\nenv:\n  A:\n  B: ''\n  C: null\n  D: 'null'\n"
    assert values_of(file, text) == {"env": {"A": None, "B": "", "C": None, "D": "null"}}


def test_every_place_has_its_line(file: Path) -> None:
    file.write_text("\nmemory: 1G\nhosts:\n  10.0.0.1:\n    - a.test\n    - b.test\n")
    origins = file_layer(file, name="ci.yaml").origins
    assert origins[("memory",)] == "ci.yaml:2"
    assert origins[("hosts",)] == "ci.yaml:3"
    assert origins[("hosts", "10.0.0.1", 1)] == "ci.yaml:6"


def test_byte_order_mark_is_no_key(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfmemory: 1G\n")
    assert file_layer(file, name="vmrunner.yaml").values == {"memory": "1G"}


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("memroy", "memory"),
        ("cpu_model", "cpu-model"),
        ("package", "packages"),
        ("kernel-arg", "kernel-args"),
    ],
)
def test_mistyped_key_names_line_and_nearest(file: Path, key: str, right: str) -> None:
    problem = Problem("vmrunner.yaml:3", f"unknown key {key!r}", f"did you mean {right!r}?")
    assert problems_of(file, f"# a comment\n\n{key}: x\n") == [problem]


def test_unlike_key_points_to_the_list(file: Path) -> None:
    (problem,) = problems_of(file, "zzz: 1\n")
    assert problem.hint == "`vmrunner test --help` lists every setting"


def test_snake_case_is_refused_even_where_right_key_is_there(file: Path) -> None:
    (problem,) = problems_of(file, "cpu-model: host\ncpu_model: max\n")
    assert str(problem) == "vmrunner.yaml:2: unknown key 'cpu_model'"


def test_key_given_twice(file: Path) -> None:
    (problem,) = problems_of(file, "memory: 1G\ncpus: 2\nmemory: 2G\n")
    assert str(problem) == "vmrunner.yaml:3: key 'memory' is given twice (first in line 1)"
    assert problem.hint == "leave one out"


def test_nested_key_given_twice(file: Path) -> None:
    (problem,) = problems_of(file, "hosts:\n  10.0.0.1: a\n  10.0.0.1: b\n")
    assert str(problem) == "vmrunner.yaml:3: key '10.0.0.1' is given twice (first in line 2)"


def test_key_that_is_no_text(file: Path) -> None:
    (problem,) = problems_of(file, "? [a, b]\n: 1\n")
    assert str(problem) == "vmrunner.yaml:1: a key that is not a text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory: lots\n", "vmrunner.yaml:1: memory: not a size: 'lots' (want for example 512M or 2G)"),
        ("memory: 64M\n", "vmrunner.yaml:1: memory: impossible size: '64M' (want 128M to 64T)"),
        ("disk: 65T\n", "vmrunner.yaml:1: disk: impossible size: '65T' (want 1G to 64T)"),
        ("memory: [1G]\n", "vmrunner.yaml:1: memory: not a size: ['1G'] (want for example 512M or 2G)"),
        ("cpus: two\n", "vmrunner.yaml:1: cpus: not a whole number: 'two'"),
        ("cpus: -1\n", "vmrunner.yaml:1: cpus: too small: '-1' (want 1 or more)"),
        ("cpus: 999\n", "vmrunner.yaml:1: cpus: too large: '999' (want 255 or less)"),
        ("cpus: [1]\n", "vmrunner.yaml:1: cpus: not a whole number: ['1']"),
        ("accel: hvf\n", "vmrunner.yaml:1: accel: not a choice: 'hvf' (want 'auto', 'kvm' or 'tcg')"),
        ("packages: vim\n", "vmrunner.yaml:1: packages: not a list: 'vim' (want for example [first, second])"),
        ("packages: {a: b}\n", "vmrunner.yaml:1: packages: not a list: {'a': 'b'} (want for example [first, second])"),
        ("packages: [[a]]\n", "vmrunner.yaml:1: packages: not a text: ['a']"),
        ("packages:\n- vim\n- null\n", "vmrunner.yaml:3: packages: not a text: None"),
        ("env: [A]\n", "vmrunner.yaml:1: env: not a mapping: ['A'] (want lines of `name: value`)"),
        ("env:\n  A: [1]\n", "vmrunner.yaml:2: env: not a text: ['1']"),
        ("env:\n  1A: x\n", "vmrunner.yaml:2: env: not a variable name: '1A' (want for example RUST_LOG)"),
        ("hosts:\n  10.0.0.1:\n", "vmrunner.yaml:2: hosts: not a list: None (want for example [first, second])"),
        ("hosts:\n  10.0.0.1: []\n", "vmrunner.yaml:2: hosts: an empty list"),
        ("hosts:\n  10.0.0.1: a b\n", "vmrunner.yaml:2: hosts: not a host name: 'a b' (want for example db.test)"),
        ("cpu-model: [x]\n", "vmrunner.yaml:1: cpu-model: not a text: ['x']"),
        ("archive: [x]\n", "vmrunner.yaml:1: archive: not a path: ['x']"),
        ("timeout: 1h30\n", "vmrunner.yaml:1: timeout: not a duration: '1h30' (want for example 90s, 30m or 1h30m)"),
    ],
)  # fmt: skip
def test_wrong_value_names_line_key_and_value(file: Path, text: str, message: str) -> None:
    assert [str(problem) for problem in problems_of(file, text)] == [message]


def test_name_and_address_in_the_wrong_order(file: Path) -> None:
    first, second = problems_of(file, "hosts:\n  db.test: [10.0.0.1]\n")
    assert str(first).startswith(
        "vmrunner.yaml:2: hosts: not an IP address: 'db.test' (in vmrunner.yaml write"
    )
    assert "it reads as an address" in str(second)


def test_wrong_image_is_one_problem(file: Path) -> None:
    (problem,) = problems_of(file, "image: [debian]\n")
    assert str(problem).startswith("vmrunner.yaml:1: image: not a choice: ['debian']")


def test_value_problems_come_in_the_order_of_the_file(file: Path) -> None:
    problems = problems_of(file, "timeout: x\nhosts: {a: b}\ncpus: y\nimage: debain\n")
    assert [problem.origin for problem in problems] == [f"vmrunner.yaml:{line}" for line in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("- a\n", "vmrunner.yaml:1: not a mapping of settings"),
        ("\njust text\n", "vmrunner.yaml:2: not a mapping of settings"),
        ("memory: 1G\n  cpus: 2\n", "vmrunner.yaml:2: not YAML: mapping values are not allowed here"),
        ("a: [1\n", "vmrunner.yaml:2: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", "vmrunner.yaml:2: not YAML: found character '\\t' that cannot start any token"),
        ("a: 'x\n", "vmrunner.yaml:2: not YAML: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "vmrunner.yaml:2: not YAML: but found another document"),
        ("a: 1\nb: \x07\n", "vmrunner.yaml:2: not YAML: special characters are not allowed"),
        (b"a: 1\nb: \xff\n", "vmrunner.yaml:2: not UTF-8 text"),
        ("a: &x 1\n", "vmrunner.yaml:1: anchors and aliases are not supported"),
        ("a: 1\nb: *x\n", "vmrunner.yaml:2: anchors and aliases are not supported"),
        ("a: 1\nb: !!python/name:os.system x\n",
         "vmrunner.yaml:2: the tag tag:yaml.org,2002:python/name:os.system is not supported"),
        ("a: !include b.yaml\n", "vmrunner.yaml:1: the tag !include is not supported"),
        ("a: " + "[" * 5000, "vmrunner.yaml:1: nested more than 8 deep"),
        ("#" * (2**18 + 1), "vmrunner.yaml is larger than 262144 bytes"),
    ],
)  # fmt: skip
def test_refused_files(file: Path, data: str | bytes, message: str) -> None:
    assert refusal(file, data).message == message


def test_billion_laughs_are_cut_short(file: Path) -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert "anchors and aliases" in refusal(file, "\n".join(lines)).message


def test_missing_file(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^there is no configuration file ci/x.yaml$") as caught:
        file_layer(file, name="ci/x.yaml")
    assert exit_code_of(caught.value) == 2


def test_directory_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^d cannot be read: Is a directory$"):
        file_layer(tmp_path, name="d")


def test_file_is_found_up_to_the_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    crate = repository / "crates" / "a"
    crate.mkdir(parents=True)
    (tmp_path / "vmrunner.yaml").touch()
    (repository / ".git").mkdir()
    assert find_file(crate) is None
    (repository / "vmrunner.yaml").touch()
    assert find_file(crate) == repository / "vmrunner.yaml"
    (crate / "vmrunner.yaml").touch()
    assert find_file(crate) == crate / "vmrunner.yaml"


def test_worktrees_have_a_git_file(tmp_path: Path) -> None:
    crate = tmp_path / "crate"
    crate.mkdir()
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    (tmp_path / "vmrunner.yaml").touch()
    assert find_file(crate) == tmp_path / "vmrunner.yaml"


def test_parents_do_not_count_outside_a_repository(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.yaml").touch()
    below = tmp_path / "below"
    below.mkdir()
    assert find_file(below) is None
    assert find_file(tmp_path) == tmp_path / "vmrunner.yaml"


def test_relative_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "vmrunner.yaml").touch()
    monkeypatch.chdir(tmp_path / "a")
    assert find_file(Path()) is None
    assert find_file(Path("..")) == tmp_path / "vmrunner.yaml"


def test_other_spelling_of_the_name_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.yml").touch()
    with pytest.raises(ConfigError, match=r"vmrunner\.yml is not read") as caught:
        find_file(tmp_path)
    assert caught.value.hint == "rename it to vmrunner.yaml"
    (tmp_path / "vmrunner.yaml").touch()
    assert find_file(tmp_path) == tmp_path / "vmrunner.yaml"
