"""Alerts that Prometheus' Alertmanager sends: ``alert_info``, ``alert_warning``, ``alert_critical``, by the label ``severity``.

One event for each alert that begins to fire, about ``alerts.<alertname>``. Alertmanager repeats what goes on firing; that is the same
event. Members of the data:

============  =====================================================================
alert         the label ``alertname`` as it is
status        ``firing``, or ``resolved`` where that is asked for
severity      the label as it is
labels        all labels; annotations: all annotations
summary       of the annotations, with description
startsAt      when it began to fire; endsAt: its end, if it has one
fingerprint   of the labels
generatorURL  the page of the rule; externalURL: of the Alertmanager
receiver      the receiver of Alertmanager's configuration that sent it
============  =====================================================================
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from kfp_operator.errors import EventError
from kfp_operator.events.webhooks import signatures
from kfp_operator.events.webhooks.connection import Connection, Delivery, Fact, Told, computed_id, fit_name, moment, objects, text
from kfp_operator.schemas import V1EventKind

Severity = Literal["info", "warning", "critical", "ignore"]

KINDS = {"info": V1EventKind.ALERT_INFO, "warning": V1EventKind.ALERT_WARNING, "critical": V1EventKind.ALERT_CRITICAL}
_USUAL: Mapping[str, Severity] = {"info": "info", "warning": "warning", "critical": "critical"}
_NO_END = "0001-01-01"


class Alertmanager(Connection):
    """Alertmanager's webhook receiver, version 4 of its payload, with the secret in ``http_config``."""

    type: Literal["alertmanager"]
    severities: Mapping[str, Severity] = Field(
        default_factory=dict, description="Further values of the label severity: info, warning, critical or ignore."
    )
    default_severity: Severity = Field("warning", description="For alerts with another severity, or none.")
    resolved: bool = Field(False, description="Tell the end of an alert too, with status resolved.")

    @property
    def kinds(self) -> tuple[V1EventKind, ...]:
        """Alerts."""
        return tuple(KINDS.values())

    @property
    def signs_body(self) -> bool:
        """No: the secret is in a header."""
        return False

    def authenticate(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        """Check the Authorization header."""
        signatures.authorization(delivery.headers, secrets)

    def read(self, delivery: Delivery) -> Told:
        """The alerts that begin, and those that end if asked for."""
        document = delivery.document()
        if text(document, "version") != "4" or not isinstance(document.get("alerts"), list):
            raise EventError("the body is not version 4 of Alertmanager's webhook payload")
        told = [self._tell(document, alert) for alert in objects(document, "alerts")]
        ignored = [one for one in told if isinstance(one, str)]
        cut = document.get("truncatedAlerts")
        if isinstance(cut, int) and cut > 0:
            ignored.append(f"{cut} alerts were cut off by Alertmanager: raise max_alerts of the receiver")
        return Told([one for one in told if isinstance(one, Fact)], ignored)

    def _tell(self, document: Mapping[str, Any], alert: Mapping[str, Any]) -> Fact | str:
        """The event of an alert, or why it is none."""
        labels, annotations = _texts(alert.get("labels")), _texts(alert.get("annotations"))
        name, severity, status = labels.get("alertname", ""), labels.get("severity", ""), text(alert, "status")
        if status != "firing" and not (self.resolved and status == "resolved"):
            return f"alert {name!r} is {status or 'of no status'}"
        if not fit_name(name):
            return f"alert without a usable label alertname: {name!r}"
        level = self.severities.get(severity) or _USUAL.get(severity.lower(), self.default_severity)
        if level == "ignore":
            return f"alert {name!r}: severity {severity!r} is ignored"
        starts, ends = text(alert, "startsAt"), text(alert, "endsAt")
        payload = {
            "alert": name,
            "status": status,
            "severity": severity,
            "labels": labels,
            "annotations": annotations,
            "summary": annotations.get("summary", ""),
            "description": annotations.get("description", ""),
            "startsAt": starts,
            "endsAt": "" if ends.startswith(_NO_END) else ends,
            "fingerprint": text(alert, "fingerprint"),
            "generatorURL": text(alert, "generatorURL"),
            "externalURL": text(document, "externalURL"),
            "receiver": text(document, "receiver"),
        }
        id_ = computed_id(payload["fingerprint"] or sorted(labels.items()), starts, status)
        return Fact(KINDS[level], id_, payload, fit_name(name), moment(starts if status == "firing" else ends))


def _texts(value: object) -> dict[str, str]:
    return {key: text(value, key) for key in value if isinstance(key, str)} if isinstance(value, dict) else {}
