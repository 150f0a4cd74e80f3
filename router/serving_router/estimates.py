"""What a request will cost, learned from those before it: per model, output also per route."""

from __future__ import annotations

from collections import defaultdict

from serving_contract.estimate import OutputEstimator, PromptEstimator
from serving_router.call import Call, Route
from serving_router.ledger import Charge


class Estimates:
    """Estimators by model and route; as many as there are served names, which are few."""

    def __init__(self) -> None:
        self._prompt: defaultdict[str | None, PromptEstimator] = defaultdict(PromptEstimator)
        self._output: defaultdict[tuple[str | None, Route], OutputEstimator] = defaultdict(
            OutputEstimator
        )

    def charge(self, call: Call) -> Charge:
        """Return what a call is expected to cost; its model has been found to be served.

        Each of `n` choices computes the prompt anew.
        """
        prompt_tokens = call.prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = self._prompt[call.model].expect(call.prompt_bytes)
        expected = self._output[call.model, call.route].expect(call.max_tokens)
        limit = None if call.max_tokens is None else call.sequences * call.max_tokens
        return Charge(
            prompt_tokens=call.choices * prompt_tokens,
            output_tokens=call.sequences * expected,
            max_output_tokens=limit,
        )

    def learn_prompt(self, call: Call, prompt_tokens: int) -> None:
        """Take in the true count; a prompt of token ids teaches nothing about bytes."""
        if call.prompt_tokens is None:
            self._prompt[call.model].learn(call.prompt_bytes, prompt_tokens)

    def learn_output(self, call: Call, output_tokens: int) -> None:
        """Take in the tokens of a whole answer, all its sequences together."""
        self._output[call.model, call.route].learn(round(output_tokens / call.sequences))
