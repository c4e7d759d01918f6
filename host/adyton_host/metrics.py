# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics with closed label sets.

Every label value is a member of an enumeration of ours, so neither tenants nor attackers can add series, and
nothing that a client chose appears in one. The registry is our own: no process-wide default collectors.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from adyton_host.endorsements import Refreshed
from adyton_host.exchange import Exchange, RouteName
from adyton_host.problems import Outcome

STATUS_CLASSES: Final = ("none", "2xx", "3xx", "4xx", "5xx")
_STATUS_CLASS_WIDTH: Final = 100
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def status_class(status: int) -> str:
    """``2xx`` for 200 to 299 and so on; ``none`` when no status was sent or it is out of range."""
    leading = status // _STATUS_CLASS_WIDTH
    return STATUS_CLASSES[leading - 1] if 2 <= leading <= len(STATUS_CLASSES) else "none"  # noqa: PLR2004


class Metrics:
    """Counters of one host."""

    def __init__(self) -> None:
        """Create every series at zero, so that rates are right from the first scrape."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "adyton_host_requests",
            "Finished exchanges with clients.",
            ("route", "outcome", "status_class"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "adyton_host_request_duration_seconds",
            "From the first byte of a request to the last byte of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._first_byte = Histogram(
            "adyton_host_first_byte_seconds",
            "From the first byte of a request to the first byte of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "adyton_host_body_bytes",
            "Body bytes carried for clients.",
            ("direction",),
            registry=self.registry,
        )
        self._restarts = Counter(
            "adyton_host_enclave_restarts",
            "Restarts of enclaves that ended by themselves.",
            registry=self.registry,
        )
        self._refreshes = Counter(
            "adyton_host_endorsement_refreshes",
            "Attempts to refresh the endorsements that clients are served.",
            ("refreshed",),
            registry=self.registry,
        )
        self._endorsements_end = Gauge(
            "adyton_host_endorsements_expire_timestamp_seconds",
            "Until when the endorsements that clients are served hold; 0 while that is not known.",
            registry=self.registry,
        )
        for outcome in Refreshed:
            self._refreshes.labels(outcome.value)
        self._in_flight = Gauge("adyton_host_in_flight", "Sealed requests under way.", registry=self.registry)
        self._enclaves_ready = Gauge(
            "adyton_host_enclaves_ready", "Enclaves that attest and take requests.", registry=self.registry
        )
        for direction in ("received", "sent"):
            self._bytes.labels(direction)
        for route in RouteName:
            self._duration.labels(route.value)
            self._first_byte.labels(route.value)
            self._requests.labels(route.value, Outcome.OK.value, "2xx")

    def observe(self, exchange: Exchange) -> None:
        """Count one finished exchange."""
        route = exchange.route.value
        self._requests.labels(route, exchange.outcome.value, status_class(exchange.status)).inc()
        self._duration.labels(route).observe(exchange.duration_s)
        if exchange.first_byte_s is not None:
            self._first_byte.labels(route).observe(exchange.first_byte_s)
        self._bytes.labels("received").inc(exchange.received_bytes)
        self._bytes.labels("sent").inc(exchange.sent_bytes)

    def watch(self, *, in_flight: Callable[[], int], enclaves_ready: Callable[[], int]) -> None:
        """Read the two gauges from their owners at each scrape."""
        self._in_flight.set_function(in_flight)
        self._enclaves_ready.set_function(enclaves_ready)

    def enclave_restarted(self) -> None:
        """Count one restart."""
        self._restarts.inc()

    def endorsements_refreshed(self, outcome: Refreshed, expires_s: int | None) -> None:
        """Count one refresh, and keep until when what is served holds."""
        self._refreshes.labels(outcome.value).inc()
        if expires_s is not None:
            self._endorsements_end.set(expires_s)

    def exposition(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
