"""What `helm test` runs: one chat completion, or the operator's word that it is ready."""

import http.client
import json
import sys
import time
import urllib.error
import urllib.request

LIMIT_S = 120
PAUSE_S = 1
DEADLINE = time.monotonic() + LIMIT_S


def send(request):
    timeout_s = max(DEADLINE - time.monotonic(), PAUSE_S)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read().decode(errors="replace")


def send_until_answered(request):
    """A pod that is just starting refuses connections, and its name may not be known yet."""
    while True:
        try:
            return send(request)
        except OSError as error:
            if time.monotonic() > DEADLINE:
                sys.exit(f"{request.full_url}: {error}; tried for {LIMIT_S} s")
            print(f"{request.full_url}: {error}; trying again", flush=True)
            time.sleep(PAUSE_S)


def ask(url, read, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        status, text = send_until_answered(request)
    except http.client.HTTPException as error:
        sys.exit(f"{url}: this is no HTTP: {error!r}")
    line = " ".join(text.split())[:500]
    if status != 200:
        sys.exit(f"{url}: {status} {line}")
    try:
        return read(text)
    except (LookupError, TypeError, ValueError):
        sys.exit(f"{url}: not the answer of an OpenAI API: {line}")


def first_model(text):
    return json.loads(text)["data"][0]["id"]


def content(text):
    return json.loads(text)["choices"][0]["message"]["content"]


def main(url):
    if url.endswith("/readyz"):
        print(url, ask(url, str))
        return
    model = ask(f"{url}/v1/models", first_model)
    message = {"role": "user", "content": "Say hello."}
    body = {"model": model, "messages": [message], "max_tokens": 8}
    print(f"{model} at {url}: {ask(f'{url}/v1/chat/completions', content, body)!r}")


main(sys.argv[1])
