"""What `helm test` runs: one chat completion, or the operator's word that it is ready."""

import json
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 120


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        sys.exit(f"{url}: {error.code} {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


def main(url):
    if url.endswith("/readyz"):
        print(url, ask(url))
        return
    model = json.loads(ask(f"{url}/v1/models"))["data"][0]["id"]
    message = {"role": "user", "content": "Say hello."}
    body = {"model": model, "messages": [message], "max_tokens": 8}
    choice = json.loads(ask(f"{url}/v1/chat/completions", body))["choices"][0]
    print(f"{model} at {url}: {choice['message']['content']!r}")


main(sys.argv[1])
