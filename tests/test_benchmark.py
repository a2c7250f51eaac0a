"""`mggtalk benchmark`: complete reports with sane figures."""

import json
import math

import pytest

from mggtalk_core import benchmark


def test_render_benchmark_reports_every_backend():
    report = benchmark.render_benchmark([(64, 1000)])
    row = report["rows"][0]
    assert (row["size"], row["gaussians"]) == (64, 1000)
    for name in ("floor", "video", "forward", "backward", "torch", "video / floor", "backward / forward"):
        assert math.isfinite(row[name]) and row[name] > 0
    assert row["torch"] > row["forward"] > 0.3 * row["floor"]
    assert json.loads(json.dumps(report)) == report
    lines = benchmark.table(report).splitlines()
    assert lines[-1].count("|") == lines[-3].count("|") == len(row) + 1


@pytest.mark.slow
def test_pipeline_benchmark_accounts_for_the_frame():
    row = benchmark.pipeline_benchmark([(256, 128)])["rows"][0]
    stages = ("deform", "relight", "project", "sort, bin", "blend, composite", "to YUV")
    assert row["fps"] > 0 and row["gaussians"] > 1000
    assert 0 < sum(row[name] for name in stages) < 3 * row["CPU ms"]
