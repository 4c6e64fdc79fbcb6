"""What OpenAI's own library makes of nearhit's refusals.

    keys_client.py URL WRITING READING SPENT

URL is nearhit's, in front of a provider that says "Hello."; the keys are one that may write, one that may only read, and
one of a tenant that has spent its rate. Prints "as expected", or fails.
"""

import os
import sys

for name in [name for name in os.environ if name.startswith("OPENAI_")]:
    del os.environ[name]

import openai  # noqa: E402

url, writing, reading, spent = sys.argv[1:]


def ask(key, **more):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, **more)
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    return answer.choices[0].message.content


def refusal(key, kind):
    try:
        ask(key)
    except openai.APIStatusError as error:
        assert isinstance(error, kind), error
        return error
    raise AssertionError("it was served")


assert ask(writing) == "Hello."
assert ask("sk-own", default_headers={"x-nearhit-key": writing}) == "Hello."
assert refusal("nh_wrong", openai.AuthenticationError).code == "invalid_api_key"
lacking = refusal(reading, openai.PermissionDeniedError)
assert lacking.code == "permission_denied" and "write" in str(lacking), lacking
limited = refusal(spent, openai.RateLimitError)
assert limited.code == "rate_limit_exceeded" and int(limited.response.headers["retry-after"]) > 0, limited
print("as expected")
