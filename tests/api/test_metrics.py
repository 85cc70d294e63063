from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from server.api.metrics import render
from server.engine.messages import Histogram, Stats

if TYPE_CHECKING:
    import httpx


def stats(running: float) -> Stats:
    return Stats(
        id=1,
        counters={'prefix_cache_hits_total{tier="ram"}': 2.0, "steps_total": 7.0},
        gauges={"requests_running": running},
        histograms={"queue_seconds": Histogram([0.1, 1.0], [3, 4], 2.5, 5)},
    )


def test_the_figures_of_several_models_parse_as_prometheus_reads_them() -> None:
    text = "\n".join(render([("one", stats(1)), ('t"wo', stats(2))])) + "\n"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == {
        "brim_prefix_cache_hits": "counter",
        "brim_steps": "counter",
        "brim_requests_running": "gauge",
        "brim_queue_seconds": "histogram",
    }
    running = {sample.labels["model"]: sample.value for sample in families["brim_requests_running"].samples}
    assert running == {"one": 1.0, 't"wo': 2.0}
    assert families["brim_prefix_cache_hits"].samples[0].labels == {"model": "one", "tier": "ram"}
    buckets = [s for s in families["brim_queue_seconds"].samples if s.labels["model"] == "one"]
    assert [(s.name, s.labels.get("le"), s.value) for s in buckets] == [
        ("brim_queue_seconds_bucket", "0.1", 3.0),
        ("brim_queue_seconds_bucket", "1.0", 4.0),
        ("brim_queue_seconds_bucket", "+Inf", 5.0),
        ("brim_queue_seconds_sum", None, 2.5),
        ("brim_queue_seconds_count", None, 5.0),
    ]


async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/v1/models/a", "/v1/models/b", "/nowhere/1", "/nowhere/2"):
        await client.get(path)
    text = (await client.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["brim_http_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counted == {("/v1/models", "200"): 1.0, ("/v1/models/{name:path}", "404"): 2.0, ("other", "404"): 2.0}
