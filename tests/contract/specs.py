"""Specs that are accepted and specs that are refused: by Python and by the API server alike.

One table for both, so that neither side can come to allow what the other refuses.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from serving_contract.kubernetes import API_VERSION, KIND

Body = dict[str, Any]

ACCEPTED: Final = {
    "the smallest": "model: {uri: pvc://weights/Qwen3-14B}",
    "a path": "model: {uri: /models/Qwen3-14B}",
    "a path of other letters": "model: {uri: /модели/千问}",
    "dots that do not climb": "model: {uri: /models/..qwen/a..b}",
    "a claim alone": "model: {uri: pvc://weights.example}",
    "the hub": "model: {uri: hf://Qwen/Qwen3-14B, secretName: hub-token}",
    "the hub at a revision": "model: {uri: hf://Qwen/Qwen3-0.6B@refs/pr/7}",
    "a served name as others have it": "model: {uri: /m, servedName: 'Qwen/Qwen3-14B:千问'}",
    "the largest sizes": "parallelism: {dataParallelSize: 512, tensorParallelSize: 64}",
    "scaled to zero": "parallelism: {dataParallelSize: 0}",
    "a whole number with a point": "engine: {maxModelLen: 8.0}",
    "no device": "devices: {resourceName: cpu}\nparallelism: {tensorParallelSize: 2}",
    "another vendor's device": "devices: {resourceName: nvidia.com/gpu}",
    "a device of Huawei Cloud": (
        "devices: {resourceName: huawei.com/ascend-1980}\nparallelism: {tensorParallelSize: 2}"
    ),
    "a whole card by its chip": (
        "devices: {resourceName: huawei.com/Ascend910B4-1}\nparallelism: {tensorParallelSize: 2}"
    ),
    "a slice": "devices: {resourceName: huawei.com/Ascend910-10c.3cpu.16g.ndvpp}",
    "another engine with its image": "engine: {kind: Custom, image: 'r.example:5000/a@sha256:c'}",
    "another engine without one": "engine: {kind: VLLM, args: [--max-num-seqs, '8', '']}",
    "all of a device's memory": "engine: {deviceMemoryFraction: '1.0'}",
    "half of a device's memory": "engine: {deviceMemoryFraction: '.5'}",
    "a block that is empty": "engine: {}\nrouter: {service: {}}\nrollout: {}\nnodeLost: {}",
    "nulls, which are absent": (
        "engine: {image: null, kind: null, args: null, maxModelLen: null}\nparallelism: null\n"
        "router: {replicas: null, service: {annotations: {a: null}}, sessionAffinity: null}\n"
        "template: null\npaused: null\nmodel: {uri: /m, servedName: null}"
    ),
    "affinity without a time": "router: {sessionAffinity: {header: x-session-id}}",
    "no router": "router: {replicas: 0}",
    "annotations of the Service": (
        "router: {service: {type: LoadBalancer, port: 65535, annotations:"
        " {Example.COM/kind: internal, plain: ''}}}"
    ),
    "percentages": "rollout: {maxSurge: 25%, maxUnavailable: 0%}",
    "only surge": "rollout: {maxSurge: 512, maxUnavailable: 0}",
    "no seconds": (
        "rollout: {minReadySeconds: 0, progressDeadlineSeconds: 1, drainTimeoutSeconds: 0}\n"
        "nodeLost: {policy: ForceDelete, afterSeconds: 0}"
    ),
    "a template of anything": (
        "template: {spec: {containers: [{name: engine, x: {y: [1, null, 1.5, true]}}], z: null}}\n"
        "router: {template: {}}"
    ),
    "paused": "paused: true",
}

REFUSED: Final = {
    "no model": ("model: null", "spec.model"),
    "no uri": ("model: {servedName: a}", "spec.model.uri"),
    "uri of no known form": ("model: {uri: weights}", "spec.model.uri"),
    "uri of another scheme": ("model: {uri: s3://bucket/model}", "spec.model.uri"),
    "uri that climbs out": ("model: {uri: pvc://w/../x}", "spec.model.uri"),
    "path that climbs out": ("model: {uri: /m/..}", "spec.model.uri"),
    "organisation that climbs out": ("model: {uri: hf://../x}", "spec.model.uri"),
    "path that ends in a slash": ("model: {uri: /models/}", "spec.model.uri"),
    "path with a space": ("model: {uri: '/models/my model'}", "spec.model.uri"),
    "claim that is no name": ("model: {uri: pvc://Weights}", "spec.model.uri"),
    "claim with an empty label": ("model: {uri: pvc://a..b}", "spec.model.uri"),
    "hub without a name": ("model: {uri: hf://Qwen}", "spec.model.uri"),
    "uri with a line break": ('model: {uri: "/m\\n"}', "spec.model.uri"),
    "uri that is too long": (f"model: {{uri: /{'m' * 1024}}}", "spec.model.uri"),
    "empty served name": ("model: {uri: /m, servedName: ''}", "spec.model.servedName"),
    "served name like a flag": ("model: {uri: /m, servedName: --port}", "spec.model.servedName"),
    "served name of words": ("model: {uri: /m, servedName: my model}", "spec.model.servedName"),
    "Secret without a hub": ("model: {uri: /m, secretName: s}", "spec.model.secretName"),
    "Secret that is no name": (
        "model: {uri: hf://a/b, secretName: My_Secret}",
        "spec.model.secretName",
    ),
    "dp above 512": (
        "parallelism: {dataParallelSize: 513}",
        "spec.parallelism.dataParallelSize",
    ),
    "negative dp": ("parallelism: {dataParallelSize: -1}", "spec.parallelism.dataParallelSize"),
    "half a replica": ("parallelism: {dataParallelSize: 1.5}", "spec.parallelism.dataParallelSize"),
    "dp as a string": ("parallelism: {dataParallelSize: '2'}", "spec.parallelism.dataParallelSize"),
    "dp as a truth": ("parallelism: {dataParallelSize: true}", "spec.parallelism.dataParallelSize"),
    "tp of zero": ("parallelism: {tensorParallelSize: 0}", "spec.parallelism.tensorParallelSize"),
    "tp above 64": ("parallelism: {tensorParallelSize: 65}", "spec.parallelism.tensorParallelSize"),
    "template slice with tp 2": (
        "devices: {resourceName: huawei.com/Ascend910-2c}\nparallelism: {tensorParallelSize: 2}",
        "spec.parallelism.tensorParallelSize",
    ),
    "dynamic slice with tp 2": (
        "devices: {resourceName: huawei.com/npu-core}\nparallelism: {tensorParallelSize: 2}",
        "spec.parallelism.tensorParallelSize",
    ),
    "memory as a device": ("devices: {resourceName: memory}", "spec.devices.resourceName"),
    "device without a name": ("devices: {resourceName: nvidia.com/}", "spec.devices.resourceName"),
    "device without a vendor": ("devices: {resourceName: /gpu}", "spec.devices.resourceName"),
    "vendor in capitals": ("devices: {resourceName: NVIDIA.com/gpu}", "spec.devices.resourceName"),
    "device with a path": ("devices: {resourceName: a.b/c/d}", "spec.devices.resourceName"),
    "device of Kubernetes": (
        "devices: {resourceName: kubernetes.io/x}",
        "spec.devices.resourceName",
    ),
    "device of a quota": ("devices: {resourceName: requests.a.b/x}", "spec.devices.resourceName"),
    "device with a long name": (
        f"devices: {{resourceName: a.b/{'x' * 64}}}",
        "spec.devices.resourceName",
    ),
    "device of nothing": ("devices: {resourceName: ''}", "spec.devices.resourceName"),
    "unknown engine": ("engine: {kind: TGI}", "spec.engine.kind"),
    "Custom without image": ("engine: {kind: Custom}", "spec.engine.image"),
    "empty image": ("engine: {image: ''}", "spec.engine.image"),
    "image with a space": ("engine: {image: 'a b'}", "spec.engine.image"),
    "unknown type": ("engine: {dtype: int4}", "spec.engine.dtype"),
    "no sequences": ("engine: {maxNumSeqs: 0}", "spec.engine.maxNumSeqs"),
    "more than Kubernetes counts": (
        "engine: {maxNumBatchedTokens: 2147483648}",
        "spec.engine.maxNumBatchedTokens",
    ),
    "no length": ("engine: {maxModelLen: 0}", "spec.engine.maxModelLen"),
    "no memory": ("engine: {deviceMemoryFraction: '0.0'}", "spec.engine.deviceMemoryFraction"),
    "too much memory": (
        "engine: {deviceMemoryFraction: '1.5'}",
        "spec.engine.deviceMemoryFraction",
    ),
    "memory as a number": (
        "engine: {deviceMemoryFraction: 0.9}",
        "spec.engine.deviceMemoryFraction",
    ),
    "memory of long digits": (
        f"engine: {{deviceMemoryFraction: '0.{'9' * 16}'}}",
        "spec.engine.deviceMemoryFraction",
    ),
    "a word for a truth": ("engine: {prefixCaching: 'no'}", "spec.engine.prefixCaching"),
    "arguments in one string": ("engine: {args: --a --b}", "spec.engine.args"),
    "argument that is a number": ("engine: {args: [--a, 1]}", "spec.engine.args"),
    "argument that is null": ("engine: {args: [null]}", "spec.engine.args"),
    "too many arguments": (f"engine: {{args: [{', '.join(['a'] * 257)}]}}", "spec.engine.args"),
    "template that is a list": ("template: []", "spec.template"),
    "negative routers": ("router: {replicas: -1}", "spec.router.replicas"),
    "routers above 512": ("router: {replicas: 513}", "spec.router.replicas"),
    "router image with a space": ("router: {image: ' a'}", "spec.router.image"),
    "unknown policy": ("router: {policy: Random}", "spec.router.policy"),
    "no pending tokens": (
        "router: {maxPendingTokensPerReplica: 0}",
        "spec.router.maxPendingTokensPerReplica",
    ),
    "affinity without header": (
        "router: {sessionAffinity: {}}",
        "spec.router.sessionAffinity.header",
    ),
    "affinity to no header": (
        "router: {sessionAffinity: {header: 'x session'}}",
        "spec.router.sessionAffinity.header",
    ),
    "affinity for no time": (
        "router: {sessionAffinity: {header: x, ttlSeconds: 0}}",
        "spec.router.sessionAffinity.ttlSeconds",
    ),
    "keys in no Secret": ("router: {apiKeysSecretName: '-'}", "spec.router.apiKeysSecretName"),
    "certificate in no Secret": ("router: {tlsSecretName: A}", "spec.router.tlsSecretName"),
    "unknown Service": ("router: {service: {type: ExternalName}}", "spec.router.service.type"),
    "port 0": ("router: {service: {port: 0}}", "spec.router.service.port"),
    "port above 65535": ("router: {service: {port: 65536}}", "spec.router.service.port"),
    "annotation that is no name": (
        "router: {service: {annotations: {a b: c}}}",
        "spec.router.service.annotations",
    ),
    "annotation of ours": (
        "router: {service: {annotations: {ascend-serving.dev/applied: x}}}",
        "spec.router.service.annotations",
    ),
    "annotation that is a number": (
        "router: {service: {annotations: {a: 1}}}",
        "spec.router.service.annotations",
    ),
    "both rollout budgets 0": (
        "rollout: {maxSurge: 0%, maxUnavailable: 0}",
        "spec.rollout.maxUnavailable",
    ),
    "unavailable 0 with the default surge": (
        "rollout: {maxUnavailable: 0%}",
        "spec.rollout.maxUnavailable",
    ),
    "percentage above 100": ("rollout: {maxSurge: 101%}", "spec.rollout.maxSurge"),
    "number in a string": ("rollout: {maxSurge: '1'}", "spec.rollout.maxSurge"),
    "word for a number": ("rollout: {maxSurge: some}", "spec.rollout.maxSurge"),
    "fractional surge": ("rollout: {maxSurge: 1.5}", "spec.rollout.maxSurge"),
    "negative surge": ("rollout: {maxSurge: -1}", "spec.rollout.maxSurge"),
    "truth for a surge": ("rollout: {maxSurge: true}", "spec.rollout.maxSurge"),
    "unavailable above 512": ("rollout: {maxUnavailable: 513}", "spec.rollout.maxUnavailable"),
    "negative seconds": ("rollout: {minReadySeconds: -1}", "spec.rollout.minReadySeconds"),
    "no deadline": (
        "rollout: {progressDeadlineSeconds: 0}",
        "spec.rollout.progressDeadlineSeconds",
    ),
    "negative drain": ("rollout: {drainTimeoutSeconds: -1}", "spec.rollout.drainTimeoutSeconds"),
    "unknown way with a lost node": ("nodeLost: {policy: Pray}", "spec.nodeLost.policy"),
    "negative patience": ("nodeLost: {afterSeconds: -1}", "spec.nodeLost.afterSeconds"),
    "a word for paused": ("paused: 'yes'", "spec.paused"),
    "unknown field": ("engin: {}", "spec.engin"),
    "unknown nested field": ("engine: {replicas: 2}", "spec.engine.replicas"),
}

ACCEPTED_NAMES: Final = ("a", "qwen3-14b", "a" * 50)
REFUSED_NAMES: Final = ("1a", "a" * 51, "A", "a_b", "a.b", "-a", "a-")


def deployment(spec: str, *, name: str = "qwen3") -> Body:
    """Return a ServingDeployment with the spec, and with a model if it says nothing of one."""
    fields = {"model": {"uri": "/m"}, **yaml.safe_load(spec)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": fields}
