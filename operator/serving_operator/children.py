"""The children beside the pods: what is meant, and what is to be done to get there.

They are created by a bare POST, so that an object of somebody else's is never touched, and then
applied with the uid and resourceVersion that were seen. In between the POST's fields are made those
of an apply: they would otherwise stay for ever, as another owner's, beside what we apply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from serving_contract.kubernetes import ANNOTATION_APPLIED
from serving_operator import naming
from serving_operator.actions import Action, ApplyChild, CreateChild, DeleteChild, TakeOver
from serving_operator.body import Body, at, fields, text
from serving_operator.managed_fields import covers_exactly
from serving_operator.observed import Child, Observed
from serving_operator.ownership import Ownership
from serving_operator.resources import router, services
from serving_operator.revision import digest
from serving_operator.settings import Defaults
from serving_operator.subject import Subject

DEPLOYMENT = "Deployment"
NETWORK_POLICY = "NetworkPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """One child as it should be.

    Attributes:
        body: all of it.
        floats_replicas: `spec.replicas` belongs to whoever scales it last.
    """

    body: Body
    floats_replicas: bool = False

    @property
    def kind(self) -> str:
        """The object's kind."""
        return text(self.body, "kind")

    @property
    def name(self) -> str:
        """The object's name."""
        return text(self.body, "metadata", "name")

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return self.kind, self.name

    @property
    def compared(self) -> Body:
        """The body without what floats."""
        if not self.floats_replicas:
            return self.body
        spec = {key: value for key, value in fields(self.body, "spec").items() if key != "replicas"}
        return {**self.body, "spec": spec}

    @property
    def hash(self) -> str:
        """Changes when what is meant changes."""
        return digest(self.compared)


def all_meant(
    subject: Subject, defaults: Defaults, observed: Observed, *, with_router: bool
) -> Iterator[Meant]:
    """Yield the children in the order in which they are needed.

    Args:
        subject: the ServingDeployment.
        defaults: the operator's images and policies.
        observed: what is there.
        with_router: whether the router's Deployment can be rendered and is accepted.

    Raises:
        TemplateInvalid: `router.template` may not be laid over it.
    """
    yield Meant(body=router.service_account(subject))
    yield Meant(body=router.role(subject))
    yield Meant(body=router.role_binding(subject))
    yield Meant(body=services.headless_service(subject))
    yield Meant(body=services.client_service(subject))
    if with_router:
        yield router_deployment(subject, defaults, observed)
    yield Meant(body=services.replica_budget(subject))
    yield Meant(body=services.router_budget(subject))
    if defaults.network_policy:
        yield Meant(body=services.network_policy(subject))


def router_deployment(subject: Subject, defaults: Defaults, observed: Observed) -> Meant:
    """Return the router's Deployment.

    Raises:
        TemplateInvalid: `router.template` may not be laid over its pod.
    """
    live = observed.children.get((DEPLOYMENT, naming.router(subject.name)))
    replicas = live.replicas if live is not None else None
    return Meant(
        body=router.deployment(subject, defaults.images, replicas),
        floats_replicas=subject.spec.router.replicas is None,
    )


def child_actions(
    subject: Subject, defaults: Defaults, observed: Observed, *, with_router: bool
) -> Iterator[Action]:
    """Yield what brings the children to what is meant; what is not ours is left alone."""
    for meant in all_meant(subject, defaults, observed, with_router=with_router):
        child = observed.children.get(meant.key)
        if child is None:
            yield CreateChild(body=meant.body, reason=f"{meant.kind} {meant.name} is missing")
        elif not _is_ours(child, subject):
            continue
        elif child.is_posted:
            yield TakeOver(child=child, reason="just created")
        elif why := why_apply(meant, child):
            yield ApplyChild(body=to_apply(meant, child), reason=why)
    policy = observed.children.get((NETWORK_POLICY, naming.replicas(subject.name)))
    if policy is not None and not defaults.network_policy and _is_ours(policy, subject):
        yield DeleteChild(child=policy, reason="network policies are not asked for any more")


def _is_ours(child: Child, subject: Subject) -> bool:
    ownership = child.owner.seen_from(subject.name, subject.uid)
    return ownership is Ownership.OURS and not child.is_terminating


def why_apply(meant: Meant, child: Child) -> str | None:
    """Return why a child of ours has to be applied; None if it is as it should be."""
    if child.fields is None:
        return "just created"
    if child.applied != meant.hash:
        return "what is meant has changed"
    if child.settled_fields is not None:
        drifted = child.settled_fields != child.fields
    else:
        owned = json.loads(child.fields)
        drifted = not covers_exactly(owned, _owned_part(meant, child, owned))
    return "somebody else changed it" if drifted else None


def _owned_part(meant: Meant, child: Child, owned: object) -> Body:
    """Return what FieldsV1 speaks of: no kind, no identity, and replicas only if we own them."""
    applied = to_apply(meant, child)
    outside = {"name", "namespace", "uid", "resourceVersion"}
    metadata = {k: v for k, v in fields(applied, "metadata").items() if k not in outside}
    body = {k: v for k, v in applied.items() if k not in {"apiVersion", "kind"}}
    if meant.floats_replicas and at(owned, "f:spec", "f:replicas") is None:
        body["spec"] = fields(meant.compared, "spec")
    return {**body, "metadata": metadata}


def to_apply(meant: Meant, child: Child) -> Body:
    """Return what is sent: bound to the very object that was seen."""
    metadata = dict(fields(meant.body, "metadata"))
    annotations: Mapping[str, object] = fields(metadata, "annotations")
    metadata["annotations"] = {**annotations, ANNOTATION_APPLIED: meant.hash}
    metadata |= {"uid": child.uid, "resourceVersion": child.resource_version}
    return {**meant.body, "metadata": metadata}
