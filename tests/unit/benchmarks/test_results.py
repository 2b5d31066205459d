"""The benchmark's own calculations: ratios, medians, tables, the page and the plot. Timings are not tested."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cpu_limit, page, results
from benchmarks.__main__ import chosen, discover
from benchmarks.load import Sample
from benchmarks.page import LATEST, PAGE, PLOT, load_result, render_page
from benchmarks.plot import draw
from benchmarks.processes import cpu_seconds, resident_mib, tree
from benchmarks.profile import LOOP, part_of, shares_of
from benchmarks.programs.paced import percentile, schedule
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import Ratio, interleave, medians, paired
from benchmarks.sections import SECTIONS
from benchmarks.sizing import derived
from benchmarks.stalls import stalls_between
from benchmarks.tables import Column, as_markdown, as_text

MEASURED = {"date": "2026-01-02", "commit": "abc", "machine": "2 cores", "versions": "Python 3.11", "load": 0.1}
COLUMNS = (Column("name", "program"), Column("rate", "per second"), Column("ratio", "ratio", ".2f"))
ROWS: list[dict[str, Any]] = [
    {"name": "floor", "rate": 1234.5, "ratio": {"median": 1, "least": 0.5, "largest": 2}},
    {"name": "signer"},
]


def sample(cpu: float) -> Sample:
    """Return a sample with one figure that matters."""
    return Sample(rate=1e6 / cpu, cpu=cpu, redis=1.0, p50=1.0, p99=2.0, p999=3.0)


def test_ratio_pairs_samples_of_the_same_round() -> None:
    """A machine that is half as fast in one round changes both samples and no ratio."""
    ours, theirs = [sample(200), sample(400), sample(210)], [sample(100), sample(200), sample(100)]
    assert paired(ours, theirs, "cpu") == Ratio(2.0, 2.0, 2.1)
    assert f"{paired(ours, theirs, 'cpu')}" == "2.00 (2.00 … 2.10)"


def test_ratio_of_different_numbers_of_rounds_is_refused() -> None:
    """A round without its other half is no pair."""
    with pytest.raises(ValueError, match="shorter"):
        paired([sample(1), sample(2)], [sample(1)], "cpu")


def test_medians_are_taken_for_each_figure() -> None:
    """The median of the rates need not be of the same round as that of the CPU."""
    assert medians([sample(100), sample(300), sample(200)]) == sample(200)


def test_rounds_alternate_their_order() -> None:
    """Each second round is in the reverse order."""
    turns: list[str] = []

    def turn(name: str) -> Sample:
        turns.append(name)
        return sample(1)

    samples = interleave({name: partial(turn, name) for name in "abc"}, 3)
    assert turns == list("abccbaabc")
    assert {name: len(each) for name, each in samples.items()} == {"a": 3, "b": 3, "c": 3}


def test_table_aligns_columns_and_writes_missing_values_as_hyphens() -> None:
    """The same rows make the terminal's table and the page's."""
    assert as_text(COLUMNS, ROWS).splitlines() == [
        "program  per second               ratio",
        "floor         1,234  1.00 (0.50 … 2.00)",
        "signer            -                   -",
    ]
    assert as_markdown(COLUMNS, ROWS).splitlines() == [
        "| program | per second | ratio |",
        "|---|---:|---:|",
        "| floor | 1,234 | 1.00 (0.50 … 2.00) |",
        "| signer | - | - |",
    ]


def test_page_gets_table_and_circumstances_of_measured_section() -> None:
    """Numbers are never typed by hand; what is around the generated part stays."""
    text = "before\n<!-- generated: ratios -->\nold\n<!-- end -->\nafter\n"
    rows = [{"name": "floor", "cpu_ratio": ROWS[0]["ratio"]}]
    written = render_page(text, {"ratios": {"measured": MEASURED, "how": "Two rounds", "rows": rows}})
    assert written.startswith("before\n<!-- generated: ratios -->\n| signer compared with |")
    assert "| floor | 1.00 (0.50 … 2.00) | - |" in written
    assert "Two rounds (2026-01-02, commit abc, 2 cores, Python 3.11, load average before 0.1).\n" in written
    assert written.endswith("<!-- end -->\nafter\n")
    assert "old" not in written


def test_page_names_command_of_section_that_was_not_measured() -> None:
    """An empty result leaves no empty table."""
    text = "<!-- generated: modes -->\n<!-- end -->\n"
    assert "Not measured yet: `make bench`." in render_page(text, {})


def test_page_and_plot_are_made_from_the_committed_result() -> None:
    """If this fails: ``make bench ARGS=page``."""
    result = load_result(LATEST)
    assert PAGE.read_text("utf-8") == render_page(PAGE.read_text("utf-8"), result)
    assert PLOT.read_text("utf-8") == draw(result)


def test_page_shows_every_section() -> None:
    """A section without its place on the page would be measured for nothing."""
    text = PAGE.read_text("utf-8")
    assert [name for name in SECTIONS if f"<!-- generated: {name} -->\n" not in text] == []


def test_every_section_names_a_benchmark_that_exists() -> None:
    """The page tells the reader to run it."""
    names = {section.command.partition("ARGS=")[2] or "challenges" for section in SECTIONS.values()}
    assert names <= set(discover())


def test_plot_draws_one_bar_for_each_program_in_proportion() -> None:
    """The longest bar belongs to the largest value, and the others are as much shorter as their values are smaller."""
    rows = [{"name": "floor", "rate": 200.0, "cpu": 10.0}, {"name": "signer", "rate": 100.0, "cpu": 40.0}]
    root = ET.fromstring(draw({"programs": {"rows": rows}}))
    bars = [float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(bars) == 4
    assert bars[0] == pytest.approx(2 * bars[1], abs=0.1)
    assert bars[3] == pytest.approx(4 * bars[2], abs=0.2)


def test_random_gaps_have_the_rate_and_are_the_same_for_one_seed() -> None:
    """All programs get their requests at the same moments."""
    due = schedule(1000, 10, seed=7)
    assert due == schedule(1000, 10, seed=7)
    assert due != schedule(1000, 10, seed=8)
    assert len(due) == pytest.approx(10_000, rel=0.05)
    assert all(one < next_one for one, next_one in itertools.pairwise(due))


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100)])
def test_percentile_is_a_measured_value(share: float, expected: float) -> None:
    """No value is interpolated."""
    assert percentile(list(range(1, 101)), share) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], (("challenges", "modes", "latency"), ())),
        (["--quick"], (("challenges",), ["--quick"])),
        (["growth", "--quick"], (("growth",), ["--quick"])),
        (["list"], (("list",), [])),
    ],
)
def test_arguments_choose_the_benchmarks(argv: list[str], expected: tuple[Any, Any]) -> None:
    """Without a name, arguments belong to the first benchmark."""
    assert chosen(argv) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [([], (8, 5.0)), (["--quick"], (3, 3.0)), (["--quick", "--rounds", "5"], (5, 3.0)), (["--seconds", "1"], (8, 1.0))],
)
def test_quick_run_has_short_rounds(argv: list[str], expected: tuple[int, float]) -> None:
    """Each length can be chosen."""
    assert length_of(options_of(argv)) == expected


@pytest.mark.parametrize("argv", [["--quick"], ["--rounds", "1"], ["--seconds", "1"], ["--only", "growth"]])
def test_run_with_an_option_publishes_nothing(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The committed result is of whole runs only."""
    before = LATEST.read_bytes()
    publish(options_of(argv), "how", {"modes": [{"name": "sign only", "rate": 12345.0}]})
    assert "12,345" in capsys.readouterr().out
    assert LATEST.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "prefix", "expected"),
    [("--prefix=/opt", "/opt", False), ("'--enable-optimizations'", "/opt", True), ("--prefix=/usr", "/usr", True)],
    ids=["own build", "optimized build", "of the distribution"],
)
def test_result_says_if_python_was_built_without_optimization(
    options: str, prefix: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a Python needs a fifth more CPU, so its figures cannot be compared with others."""
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: options)
    monkeypatch.setattr(sys, "base_prefix", prefix)
    assert results.is_optimized_build() is expected
    assert ("without optimization" in next(results._versions())) is not expected


def test_run_with_json_keeps_the_other_sections_of_that_file(tmp_path: Path) -> None:
    """Each benchmark writes its own section, with its circumstances."""
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"growth": {"how": "earlier"}}))
    publish(options_of(["--quick", "--json", str(file)]), "how", {"ratios": [{"name": "floor", "cpu": Ratio(1, 1, 1)}]})
    result = json.loads(file.read_text("utf-8"))
    assert result["growth"] == {"how": "earlier"}
    assert result["ratios"]["rows"] == [{"name": "floor", "cpu": {"median": 1, "least": 1, "largest": 1}}]
    assert set(result["ratios"]["measured"]) == set(MEASURED)


def test_stalls_are_those_of_the_time_in_between() -> None:
    """The last line may be incomplete, because the service is writing it."""
    lines = "1.0 0.010 0.001 5\n2.0 0.020 0.002 1\n3.0 0.030 0.003 7\n4.0 0.04"
    assert stalls_between(lines, 1.5, 9.0) == [(0.02, 0.002, 1), (0.03, 0.003, 7)]
    assert stalls_between("", 0.0, 9.0) == []


def test_derived_size_of_pod_is_its_cpu_by_that_of_one_challenge() -> None:
    """Without cgroups, the limit cannot be tried."""
    assert derived(cpu=1000.0, cores=0.5) == {"highest": 500.0, "rate": 300.0}


def test_cpu_and_memory_of_a_service_include_its_child_processes() -> None:
    """The workers of a service are children of the process that was started."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the child runs
        assert len(list(tree(process.pid))) == 2
        assert len(resident_mib(process.pid)) == 2
        assert min(resident_mib(process.pid)) > 1
        assert cpu_seconds(process.pid) >= 0
        process.communicate(b"\n")


def test_pod_size_is_derived_where_no_group_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not root, or no Linux: the limit cannot be set, and the benchmark goes on."""
    for name in ("_V1", "_V2"):
        monkeypatch.setattr(cpu_limit, name, tmp_path / "absent")
    with cpu_limit.limited(os.getpid(), 0.5) as is_limited:
        assert not is_limited


def test_group_without_a_controller_limits_nothing_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's own group may have no CPU controller."""
    monkeypatch.setattr(cpu_limit, "_V2", tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    with cpu_limit.limited(os.getpid(), 0.5) as is_limited:
        assert not is_limited
    assert [file.name for file in tmp_path.iterdir()] == ["cgroup.controllers"]


def test_sample_counts_for_innermost_frame_of_a_part() -> None:
    """The standard library counts for its caller, and what no part called for the event loop."""
    library, domain, log = (
        "/usr/lib/python3/json/encoder.py",
        "/x/signer/domain/record.py",
        "/x/signer/observability/a.py",
    )
    assert part_of([library, domain, log]) == "domain: parser, policy, records"
    assert part_of(["/usr/lib/python3/asyncio/runners.py", "/x/signer/cli/serve.py"]) == LOOP
    shares = shares_of([{"count": 3, "files": [log, domain]}, {"count": 1, "files": []}])
    assert shares == {"log lines": 0.75, LOOP: 0.25}


def test_published_result_has_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples would be hundreds of lines of each commit; all numbers are rounded."""
    for name in ("LATEST", "PAGE", "PLOT"):
        monkeypatch.setattr(page, name, tmp_path / name)
    monkeypatch.setattr(results, "LATEST", tmp_path / "LATEST")
    monkeypatch.setattr(page.load_result, "__defaults__", (tmp_path / "LATEST",))
    page.PAGE.write_text("<!-- generated: programs -->\n<!-- end -->\n")
    row = {"name": "signer", "rate": 1.23456, "cpu": 2.0, "samples": [sample(1)]}
    publish(options_of([]), "how", {"programs": [row]})
    [written] = json.loads(page.LATEST.read_text("utf-8"))["programs"]["rows"]
    assert written == {"name": "signer", "rate": 1.235, "cpu": 2.0}
    assert "| signer | 1 | 2 |" in page.PAGE.read_text("utf-8")
    assert "<svg" in page.PLOT.read_text("utf-8")


def options_of(argv: list[str]) -> Any:  # noqa: ANN401 - argparse's namespace
    """Parse the options that all benchmarks have, and one that some have."""
    parser = argparse.ArgumentParser()
    add_options(parser, rounds=8, seconds=5.0)
    parser.add_argument("--only", default="")
    return parser.parse_args(argv)
