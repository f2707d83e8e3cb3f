"""What vendors say when something goes wrong, in their exact words: whose fault it is, what it comes down to, which lines it names.

Sources: OpenAI (error codes guide; openai-python#2084; curator#111; learn.microsoft.com 2285577 for Azure), Anthropic (API
reference, errors; claude-code#66314; curator#296), continue#9853 (DeepSeek), qwen-code#73 and openclaude#43 (OpenRouter),
docs.z.ai/api-reference/api-code (Z.AI), shell_gpt#653 and MetaGPT#523 (requests too large, and rates).
"""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nura_cli.dialects import openai, refusals, topics, vendors
from nura_cli.dialects.base import Dialect, Rejection, ResultLine
from nura_cli.pipeline.classify import Verdict, scrubbed
from nura_cli.state.answers import Charge, Failure
from nura_cli.states import Blame, ErrorKind, Reason
from tests.acme import AcmeDialect

OPENAI, ANTHROPIC = vendors.dialect("openai"), vendors.dialect("anthropic")
BOTH = pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)

LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase"
    " credits."
)
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, read"
    " the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
TIER = (
    "You have reached your API usage limits: your organization has crossed its monthly API usage threshold, set based on your"
    " organization's API tier. You will regain access on 2026-12-01 at 00:00 UTC."
)
ENQUEUED = (
    "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued tokens. Please try again"
    " once some in_progress batches have been completed."
)
SURPASSED = (
    "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'gpt-4.1-batch'. Please"
    " either increase the limit or try again once the current jobs have finished."
)
OVERSIZED = (
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 31538. The input or"
    " output tokens must be reduced in order to run successfully."
)
PACE = (
    "Rate limit reached for gpt-4 in organization org-x on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082."
    " Please try again in 9.816s."
)
AZURE_PACE = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-08-01-preview have exceeded token"
    " rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds."
)
NO_MODEL = "The model `gpt-9` does not exist or you do not have access to it."
NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please"
    " wait a moment and try again."
)
TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"

# --- single requests

A, U, T = Blame.ACCOUNT, Blame.UNSURE, Blame.TASK


def openai_row(status: int | None, error: Any, *, outside: bool = False) -> ResultLine:
    """Return a failed row of an OpenAI batch: its error in the response's body, or beside it."""
    response = None if outside else {"status_code": status, "request_id": "r", "body": {"error": error}}
    line = {"id": "x", "custom_id": "t", "response": response, "error": error if outside else None}
    return OPENAI.result(json.dumps(line).encode())


def anthropic_row(kind: str, message: str, **more: Any) -> ResultLine:
    """Return an errored row of an Anthropic batch."""
    error = {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "r"}
    return ANTHROPIC.result(json.dumps({"custom_id": "t", "result": {"type": "errored", "error": error}}).encode())


@pytest.mark.parametrize(
    ("status", "type_", "code", "message", "blame"),
    [
        (429, "insufficient_quota", "insufficient_quota", QUOTA, A),
        (429, "insufficient_quota", "project_spend_limit_exceeded", QUOTA, A),
        (429, "insufficient_quota", "credit_balance_exhausted", "", A),
        (429, "insufficient_quota", "something_newer", "", A),
        (429, None, None, QUOTA, A),
        (400, "invalid_request_error", "billing_hard_limit_reached", "Billing hard limit has been reached", A),
        (400, "invalid_request_error", None, "Billing hard limit has been reached", A),
        (429, "billing_not_active", "billing_not_active", "Your account is not active, please check your billing.", A),
        (403, None, None, "Your account is not active, please check your billing details on our website.", A),
        (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-x.", A),
        (400, None, None, "Incorrect API key provided: sk-x.", A),
        (403, "invalid_request_error", "account_deactivated", "This key is associated with a deactivated account.", A),
        (401, None, None, "whatever", A),
        (402, None, None, "whatever", A),
        (402, "unknown_error", "invalid_request_error", "Insufficient Balance", A),  # DeepSeek
        (400, None, "Arrearage", "Access denied, please make sure your account is in good standing.", A),  # DashScope
        (403, None, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted.", A),
        (429, "exceeded_current_quota_error", None, "Your account is suspended, please check your plan", A),  # Moonshot
        (
            402,
            None,
            402,
            "This request requires more credits, or fewer max_tokens. You requested up to 225702 tokens",
            A,
        ),
        (None, None, 402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits", A),
        (429, None, "1113", "Your account is in arrears, please recharge and try again", A),  # Z.AI
        (400, "budget_exceeded", None, "Budget has been exceeded! Current cost: 12.1, Max budget: 12.0", A),  # LiteLLM
        (
            400,
            None,
            "400",
            f'litellm.BadRequestError: AnthropicException - {{"type":"error","error":{{"type":"x","message":"{CREDIT}"}}}}',
            A,
        ),
        (400, None, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", A),  # Gemini
        (403, None, "insufficient_user_quota", "user quota is not enough", A),  # One API
        (404, "invalid_request_error", "model_not_found", NO_MODEL, U),
        (404, "NotFoundError", 404, "The model `x` does not exist.", U),  # vLLM
        (404, None, "DeploymentNotFound", NO_DEPLOYMENT, U),
        (400, "invalid_request_error", "unsupported_model", "no", U),
        (400, None, "OperationNotSupported", "The chatCompletion operation does not work with the specified model", U),
        (403, None, "unsupported_country_region_territory", "Country, region, or territory not supported", U),
        (403, None, None, "whatever", U),
        (403, "invalid_request_error", "model_not_found", "Project `proj_x` does not have access to model `gpt-x`", U),
        (400, None, None, "Your organization must be verified to use the model `o3`.", U),
        (429, "tokens", "rate_limit_exceeded", PACE, U),
        (429, None, "429", AZURE_PACE, U),
        (429, "too_many_tokens_error", "token_quota_exceeded", "Tokens per minute limit exceeded", U),  # Cerebras
        (429, None, "Throttling.AllocationQuota", "Allocated quota exceeded", U),  # DashScope
        (429, None, None, "whatever", U),
        (429, "engine_overloaded_error", None, "The engine is currently overloaded, please try again later", U),
        (500, "server_error", None, "The server had an error while processing your request. Sorry about that!", U),
        (503, None, None, "whatever", U),
        (408, None, None, "whatever", U),
        (409, None, None, "whatever", U),
        (0, None, None, "whatever", U),
        (200, None, None, "whatever", U),
        (429, "tokens", "rate_limit_exceeded", OVERSIZED, T),
        (413, "tokens", "rate_limit_exceeded", OVERSIZED.replace("gpt-4o", "model `llama`"), T),  # Groq
        (
            400,
            "invalid_request_error",
            "context_length_exceeded",
            "This model's maximum context length is 8192 tokens.",
            T,
        ),
        (400, "invalid_request_error", "unsupported_parameter", "Unsupported parameter: 'max_tokens'", T),
        (400, "invalid_request_error", None, "Invalid 'messages[0].content': string too long.", T),
        (413, None, None, "whatever", T),
        (422, None, None, "whatever", T),
        (404, None, None, "No such File object: file-x", T),
        (400, None, "InternalError.Algo.InvalidParameter", "Range of input length should be [1, 30720]", T),
    ],
)
def test_whose_fault_a_row_of_openais_or_of_a_service_like_it_is(
    status: int | None, type_: Any, code: Any, message: str, blame: Blame
) -> None:
    assert openai_row(status, {"message": message, "type": type_, "param": None, "code": code}).blame is blame


@pytest.mark.parametrize(
    ("kind", "message", "blame"),
    [
        ("invalid_request_error", LIMIT, A),
        ("invalid_request_error", LIMIT.replace("API", "workspace API"), A),
        ("rate_limit_error", TIER, A),
        ("rate_limit_error", "enforced_spend_limit_reached: this organization hit its spend limit", A),
        ("invalid_request_error", CREDIT, A),
        ("invalid_request_error", "This organization has been disabled.", A),
        ("billing_error", "whatever", A),
        ("authentication_error", "invalid x-api-key", A),
        ("enforced_spend_limit_reached", "whatever", A),
        ("not_found_error", "model: claude-9", U),
        ("permission_error", "Your API key does not have permission to use the specified resource.", U),
        (
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 50,000 tokens per minute.",
            U,
        ),
        ("overloaded_error", "Overloaded", U),
        ("api_error", "Internal server error", U),
        ("timeout_error", "whatever", U),
        ("something_new", "whatever", U),
        ("invalid_request_error", TOO_LONG, T),
        ("invalid_request_error", "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens", T),
        ("invalid_request_error", "model: Field required", T),
        ("not_found_error", "File not found: file_01", T),
        ("request_too_large", "Request exceeds the maximum size", T),
    ],
)
def test_whose_fault_a_row_of_anthropics_is(kind: str, message: str, blame: Blame) -> None:
    assert anthropic_row(kind, message).blame is blame


@pytest.mark.parametrize(
    ("message", "blame"),
    [
        *(
            (words, A)
            for words in (
                "Your API key has expired",
                "You have insufficient quota",
                "You've exceeded your monthly spend limit",
                "Your credits have been exhausted",
                "Your free trial has expired",
                "Account balance is insufficient",
                "Sorry, your account balance is insufficient",
                "The account has insufficient funds",
                "Your organization has run out of credits",
                "Your organization has reached its monthly spending limit",
                "Organization spend limit reached",
                "Monthly quota exceeded",
                "Your subscription is past due",
                "User balance not enough",
                "Out of call volume quota. Quota will be replenished in 02:03:04",
                "Invalid API Key",
                "Unauthorized",
                "error: Insufficient credits",
                "Your team 0f1e has either used all available credits or reached its monthly spending limit. To continue",
                "permission-denied: Your team abc has reached its monthly spending limit",
                "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
                "Key limit exceeded (daily limit)",
                "Payment method required",
                "No valid payment method on file",
                "Your free trial has ended. Please upgrade",
                "Your subscription plan has been cancelled",
                "Access to this resource is blocked because your subscription has been disabled",
                "We cannot process your request because your organization has hit its monthly budget",
                "This request would exceed your organization's monthly spend limit",
                "This account's prepaid balance is exhausted",
                "Your account org-x <ak-1> is suspended",
                "Your account associated with this API key has been suspended",
                "Account temporarily suspended",
                "Organization Acme has been disabled",
                "Project `proj_x` has been archived",
                "The API key you provided is invalid",
                "余额不足或无可用资源包,请充值。",
                "用户余额不足",
                "您的账户已欠费",
                "该令牌额度已用尽",
            )
        ),
        *(
            (words, U)
            for words in (
                "Model not found: gpt-9",
                "gpt-9 is not a valid model ID",
                "Invalid model name passed in model=gpt-9",
                "No endpoints found for x/y",
                "This model is not available in your region",
                "Your API key does not have permission to use the specified resource.",
                "The project does not have access to model x",
                "Overloaded",
            )
        ),
        *(
            (words, T)
            for words in (
                "Model does not support image input",
                "User message content is invalid",
                "Project name is invalid",
                "The key is not found in the schema",
                "No user message found",
                "Your request was rejected as a result of our safety system.",
                "Your input exceeds the context window of this model.",
                "Your organization allows 10,000 tokens per minute, and your quota exceeded it",
                "You have exceeded the maximum number of images",
                "We could not process the image",
            )
        ),
    ],
)
def test_words_that_nobody_listed_are_understood_by_how_they_begin(message: str, blame: Blame) -> None:
    assert openai_row(400, {"message": message, "type": "invalid_request_error", "code": None}).blame is blame


@pytest.mark.parametrize(
    "message",
    [
        "User prompt was blocked by the safety filter.",
        "User input has been blocked",
        "User message is blocked by our moderation system",
        "litellm.BadRequestError: User message was blocked by guardrail",
        "The user message was blocked due to sensitive words",
        "The user prompt contains restricted terms",
        "The user has been banned from this chat",
        "Your project files are locked",
        "Subscription plan field is expired",
        "Account number is restricted",
        "Account information was blocked",
        "Workspace 3 messages were blocked",
        "Team members who are locked",
        "API key detected in the prompt and blocked",
        "API key was detected and blocked",
        "No credit card numbers are allowed",
        "Credit card data is not enough masked",
        "Credit score is negative",
        "Budget field is empty",
        "Balance must not be negative",
        "No budget was given",
    ],
)
def test_what_is_said_of_a_record_is_not_said_of_the_account(message: str) -> None:
    for status, blame in ((400, T), (403, U)):
        assert openai_row(status, {"message": message, "type": "invalid_request_error"}).blame is blame
    assert anthropic_row("invalid_request_error", message).blame is T
    assert OPENAI.reason(Rejection(None, message, None)) is Reason.CONTENT


@pytest.mark.parametrize(
    "code",
    [
        *("credit_card_detected", "CREDIT_CARD", "credit_score", "payment_information_blocked", "api_key_detected"),
        *("billing_pii", "thinking_budget", "budget_tokens_too_large", "sensitive_account_balance"),
    ],
)
def test_a_code_for_what_a_record_holds_says_nothing_of_the_account(code: str) -> None:
    assert openai_row(400, {"message": "no", "code": code}).blame is T
    assert openai_row(403, {"message": f"{code.lower()} number found in the input"}).blame is U


@pytest.mark.parametrize(
    "code", ["credit_card_declined", "payment_information_required", "budget_exceeded", "out_of_credits"]
)
def test_a_code_for_money_is_about_the_account(code: str) -> None:
    assert openai_row(400, {"message": "no", "code": code}).blame is A


def test_an_anthropic_code_may_stand_in_the_details() -> None:
    found = anthropic_row("rate_limit_error", "", details={"error_code": "enforced_spend_limit_reached"})
    assert (found.blame, found.code) == (A, "rate_limit_error")


def test_what_expired_or_was_cancelled_is_the_tasks() -> None:
    for ending in ("expired", "canceled"):
        assert ANTHROPIC.result(json.dumps({"custom_id": "t", "result": {"type": ending}}).encode()).blame is T
    for code in ("batch_expired", "batch_cancelled"):
        assert openai_row(None, {"code": code, "message": LIMIT}, outside=True).blame is T


@pytest.mark.parametrize("outside", [False, True])
def test_an_error_counts_wherever_it_stands(outside: bool) -> None:
    assert openai_row(429, {"code": "insufficient_quota", "message": QUOTA}, outside=outside).blame is A
    assert openai_row(400, QUOTA, outside=outside).blame is A


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (
            {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."},
            "Arrearage",
        ),
        ({"detail": "Insufficient credits"}, None),
    ],
)
def test_a_body_may_itself_be_the_error(body: dict[str, Any], code: str | None) -> None:
    line = {"id": "x", "custom_id": "t", "response": {"status_code": 400, "body": body}, "error": None}
    found = OPENAI.result(json.dumps(line).encode())
    assert (found.blame, found.code, found.error) == (A, code, ErrorKind.REFUSED)
    assert found.message in body.values()


SHAPES = (
    ({"error": {"message": "x"}, "code": "insufficient_quota"}, "insufficient_quota", "x"),
    ({"error": {"message": "x", "code": "E17"}, "code": "Arrearage"}, "E17", "x"),
    ({"code": "insufficient_quota", "error": "no"}, "insufficient_quota", "no"),
    ({"type": "billing_error", "error": "no"}, "billing_error", "no"),
    ({"type": "error", "error": {"type": "billing_error", "message": "no"}}, "billing_error", "no"),
    ({"error": CREDIT}, None, CREDIT),
    ({"errors": [{"message": CREDIT}]}, None, CREDIT),
    ({"errors": [CREDIT]}, None, CREDIT),
    ({"error": [CREDIT]}, None, CREDIT),
    ({"error": [{"message": CREDIT, "code": 17}]}, "17", CREDIT),
    ({"error": {"error": {"message": CREDIT, "type": "invalid_request_error"}}}, "invalid_request_error", CREDIT),
    ({"detail": [{"msg": CREDIT, "loc": ["body"]}]}, None, CREDIT),
    ({"detail": {"message": CREDIT}}, None, CREDIT),
    ({"msg": CREDIT}, None, CREDIT),
    ({"error_code": 17, "error_msg": CREDIT}, "17", CREDIT),
    (
        [{"error": {"code": 429, "message": CREDIT, "status": "RESOURCE_EXHAUSTED"}}],
        "RESOURCE_EXHAUSTED",
        CREDIT,
    ),  # Gemini
    ([{"error": {"message": CREDIT}}, {"error": {"message": "another"}}], None, CREDIT),
    (CREDIT, None, CREDIT),
    ('{"error": {"message": "no", "code": "insufficient_quota"}}', "insufficient_quota", "no"),  # wrapped into a string
)


@pytest.mark.parametrize(("body", "code", "message"), SHAPES)
def test_an_error_of_any_shape_keeps_its_codes_and_words(body: Any, code: str | None, message: str) -> None:
    for status in (400, 403, 429):
        line = {"id": "x", "custom_id": "t", "response": {"status_code": status, "body": body}, "error": None}
        found = OPENAI.result(json.dumps(line).encode())
        assert (found.blame, found.code, found.message) == (A, code, message)
    result = {"type": "errored", "error": body}
    if isinstance(body, dict):  # a service that speaks Anthropic's protocol
        told = ANTHROPIC.result(json.dumps({"custom_id": "t", "result": result}).encode())
        assert (told.blame, told.message) == (A, message)


@pytest.mark.parametrize(("body", "code", "message"), SHAPES[:-1])
def test_so_does_the_refusal_of_a_create(body: Any, code: str | None, message: str) -> None:
    for dialect in (OPENAI, ANTHROPIC):
        assert {vendors.reason(dialect.name, fault) for fault in dialect.faults(body)[:1]} == {Reason.SETTINGS}


def test_xai_s_words_for_want_of_credit() -> None:
    words = "Your team 0f1e has either used all available credits or reached its monthly spending limit. To continue, please"
    for status, code in (
        (403, "The caller does not have permission to execute the specified operation"),
        (429, "exhausted"),
    ):
        line = {"custom_id": "t", "response": {"status_code": status, "body": {"code": code, "error": words}}}
        found = OPENAI.result(json.dumps(line).encode())
        assert (found.blame, found.code, found.message) == (A, code, words)


@pytest.mark.parametrize("body", [{}, [], None, 5, {"choices": [{"message": {"content": CREDIT}}]}, {"output": CREDIT}])
@pytest.mark.parametrize("status", [400, 500])
def test_what_a_model_said_is_no_word_of_an_error(body: Any, status: int) -> None:
    line = {"custom_id": "t", "response": {"status_code": status, "body": body}, "error": None}
    found = OPENAI.result(json.dumps(line).encode())
    assert (found.blame, found.code) == (T if status == 400 else U, None)


def test_a_parameter_may_be_named_as_a_place_in_a_detail() -> None:
    body = {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"}]}
    line = {"custom_id": "t", "response": {"status_code": 422, "body": body}, "error": None}
    found = OPENAI.result(json.dumps(line).encode())
    assert (found.blame, found.message, found.param) == (T, "Field required", "body.messages.0")


MONEY = (
    LIMIT,
    CREDIT,
    QUOTA,
    "Billing hard limit has been reached",
    "Insufficient Balance",
    "Incorrect API key provided",
)
QUOTING = st.sampled_from(
    (
        "Invalid value: '{}'. Supported values are: 'a'.",
        "messages.0.content: {}",
        "We could not parse {}",
        "Invalid prompt: {}",
        '{{"input": "{}"}}',
        "'{}' is too long",
        "The content was flagged: {}",
        "Invalid 'messages[0].content': {}",
    )
)


@given(words=st.sampled_from(MONEY), quoting=QUOTING)
@example(words="insufficient_quota, Please try again later", quoting="Invalid value: {}")
def test_what_a_record_says_of_money_is_no_word_of_the_vendors(words: str, quoting: str) -> None:
    message = quoting.format(words)
    assert openai_row(400, {"message": message, "type": "invalid_request_error"}).blame is T
    assert anthropic_row("invalid_request_error", message).blame is T
    for code in (None, "invalid_request_error"):
        assert {each.reason(Rejection(code, message, 1)) for each in (OPENAI, ANTHROPIC)} == {Reason.CONTENT}


@pytest.mark.parametrize(
    "code", ["context_length_exceeded", "invalid_value", "content_policy_violation", "invalid_prompt"]
)
def test_a_code_about_the_request_goes_before_its_words(code: str) -> None:
    assert openai_row(400, {"message": CREDIT, "code": code}).blame is T
    assert OPENAI.reason(Rejection(code, CREDIT, None)) is Reason.CONTENT


@pytest.mark.parametrize(("status", "blame"), [(404, T), (422, T), (413, T), (500, U)])
def test_words_about_money_count_with_a_status_that_can_mean_it(status: int, blame: Blame) -> None:
    assert openai_row(status, {"message": CREDIT}).blame is blame


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (OVERSIZED, ErrorKind.REFUSED),
        ("Tokens per min (TPM): Limit 10,000, Requested 12,000.", ErrorKind.REFUSED),
        ("Tokens per min (TPM): Limit 10,000, Requested 2,000.", ErrorKind.RATE_LIMITED),
        (PACE, ErrorKind.RATE_LIMITED),
        ("whatever", ErrorKind.RATE_LIMITED),
    ],
)
def test_a_request_that_no_minute_allows_is_refused_and_not_limited(message: str, kind: ErrorKind) -> None:
    assert openai_row(429, {"message": message, "code": "rate_limit_exceeded"}).error is kind


@given(
    codes=st.lists(st.text(max_size=40), max_size=3),
    message=st.none() | st.text(),
    status=st.none() | st.integers(0, 700),
    kind=st.sampled_from(ErrorKind),
)
def test_anything_that_is_said_is_somebodys_fault(
    codes: list[str], message: str | None, status: int | None, kind: ErrorKind
) -> None:
    found = topics.blame(kind, codes, message, status)
    assert found in Blame
    assert kind is not ErrorKind.PROVIDER_ERROR or found is not T


# --- what a request is refused for


@pytest.mark.parametrize(
    ("param", "shown"),
    [
        ("messages[0].content", "messages[0].content"),
        (["body", "messages", 0], "body.messages.0"),
        (7, "7"),
        *((nothing, None) for nothing in (None, "", [], {}, True, {"a": 1}, [None], 1.5)),
        ("a\x00b\u2028c\nd", "a b c d"),
        ("x" * 10_000, "x" * 200),
    ],
)
def test_openai_names_the_parameter(param: Any, shown: str | None) -> None:
    assert openai_row(400, {"message": "m", "code": "c", "param": param}).param == shown


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("messages.0.content.1.image.source: too large", "messages.0.content.1.image.source"),
        (
            "messages.0.content.1.image.source.base64.media_type: Input should be",
            "messages.0.content.1.image.source.base64.media_type",
        ),
        ("max_tokens: 100000 > 8192, which is the maximum", "max_tokens"),
        ("requests.2.params.max_tokens: Field required", "max_tokens"),
        ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
        (TOO_LONG, None),
        (LIMIT, None),
        ("Error: no", None),
        ("see messages.0.content: no", None),
        ("", None),
        ("a" * 500 + ": no", None),
    ],
)
def test_anthropic_names_the_parameter_at_the_start_of_its_words(message: str, param: str | None) -> None:
    assert anthropic_row("invalid_request_error", message).param == param


def test_a_parameter_is_kept_without_secrets() -> None:
    kept = scrubbed(Verdict(Failure(ErrorKind.REFUSED, "m", "c", 400, "sk-abcdefgh"), None, Charge())).failure
    assert kept is not None
    assert kept.param == "[secret]"


# --- whole batches


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("invalid_request_error", LIMIT, Reason.SETTINGS),
        ("invalid_request_error", CREDIT, Reason.SETTINGS),
        (None, CREDIT, Reason.SETTINGS),
        ("rate_limit_error", TIER, Reason.SETTINGS),
        (None, "The model `gpt-9` is not available for batched requests.", Reason.SETTINGS),
        ("insufficient_quota", QUOTA, Reason.SETTINGS),
        ("rate_limit_exceeded", QUOTA, Reason.SETTINGS),
        ("project_spend_limit_exceeded", "", Reason.SETTINGS),
        ("enforced_spend_limit_reached", "", Reason.SETTINGS),
        ("billing_not_active", "", Reason.SETTINGS),
        (None, "Your account is not active, please check your billing details on our website.", Reason.SETTINGS),
        (None, "You have exceeded your file storage quota.", Reason.SETTINGS),
        ("Arrearage", None, Reason.SETTINGS),
        ("402", "Insufficient Balance", Reason.SETTINGS),
        ("invalid_request_error", "main: creating a batch: HTTP 400: " + LIMIT, Reason.SETTINGS),
        ("permission_error", "no", Reason.SETTINGS),
        ("unsupported_country_region_territory", "no", Reason.SETTINGS),
        ("DeploymentNotFound", NO_DEPLOYMENT, Reason.SETTINGS),
        ("invalid_request_error", NO_MODEL, Reason.SETTINGS),
        ("MODEL_NOT_FOUND", "no", Reason.SETTINGS),
        ("token_limit_exceeded", ENQUEUED, Reason.TOO_MUCH),
        ("TOKEN_LIMIT_EXCEEDED", None, Reason.TOO_MUCH),
        (None, ENQUEUED, Reason.TOO_MUCH),
        ("invalid_request_error", ENQUEUED, Reason.TOO_MUCH),
        ("something_new", ENQUEUED.replace("token", "request"), Reason.TOO_MUCH),
        (None, SURPASSED, Reason.TOO_MUCH),
        ("invalid_request_error", "Too many batches in the queue.", Reason.TOO_MUCH),
        ("invalid_request_error", "Too many batch requests in the processing queue", Reason.TOO_MUCH),
        ("x", "You have reached the maximum number of concurrent batches", Reason.TOO_MUCH),
        (None, "You have exceeded the maximum number of batches", Reason.TOO_MUCH),
        (None, "This batch would exceed the enqueued token limit", Reason.TOO_MUCH),
        (None, "The request exceeded a timeout", Reason.CONTENT),
        (None, "Request exceeds the rate of this minute", Reason.CONTENT),
        ("invalid_request_error", "File is too large.", Reason.TOO_LARGE),
        (None, "File is too large: 210000000 bytes, at most 200000000.", Reason.TOO_LARGE),
        ("something_new", "The batch file exceeds the maximum size of 200 MB.", Reason.TOO_LARGE),
        ("invalid_request_error", "Maximum file size exceeded", Reason.TOO_LARGE),
        ("invalid_request_error", "Request body too large", Reason.TOO_LARGE),
        (None, "413 Request Entity Too Large", Reason.TOO_LARGE),
        (None, "Payload too large", Reason.TOO_LARGE),
        (None, "File size exceeds 100MB", Reason.TOO_LARGE),
        (None, "The batch has 60000 requests, exceeds the maximum of 50000", Reason.TOO_LARGE),
        (None, "The batch input file exceeds the maximum number of requests (50000)", Reason.TOO_LARGE),
        ("invalid_request_error", "requests: List should have at most 100000 items after validation", Reason.TOO_LARGE),
        ("server_error", "The server had an error", Reason.OUTAGE),
        ("internal_failure", "", Reason.OUTAGE),
        (None, "Internal server error", Reason.OUTAGE),
        (None, "503", Reason.CONTENT),
        ("503", "", Reason.OUTAGE),
        (None, "The batch could not be processed. Please try again later.", Reason.OUTAGE),
        ("batch_failed", "The batch could not be processed. Please try again later.", Reason.OUTAGE),
        ("batch_failed", "We could not read 'Please try again later.'", Reason.CONTENT),
        (None, "The server had an error while processing your request. Sorry about that!", Reason.OUTAGE),
        ("invalid_request_error", TOO_LONG, Reason.CONTENT),
        (None, "The request is too large: 210000 tokens", Reason.CONTENT),
        (None, OVERSIZED, Reason.CONTENT),
        ("invalid_json_line", "This line is not parseable as valid JSON. Please try again later.", Reason.CONTENT),
        ("model_mismatch", "The model 'x' does not exist in this batch", Reason.CONTENT),
        ("duplicate_custom_id", "The custom_id 'File is too large' is used twice.", Reason.CONTENT),
        ("something_new", "nobody knows", Reason.CONTENT),
    ],
)
@BOTH
def test_what_a_refused_batch_comes_down_to(
    dialect: Dialect, code: str | None, message: str | None, reason: Reason
) -> None:
    assert dialect.reason(Rejection(code, message, None)) is reason
    assert vendors.reason(dialect.name, Rejection(code, message, None)) is reason


@BOTH
def test_a_line_that_is_too_large_makes_no_batch_too_large(dialect: Dialect) -> None:
    assert dialect.reason(Rejection(None, "Request body too large", 3)) is Reason.CONTENT
    assert dialect.reason(Rejection("invalid_request_error", LIMIT, 1)) is Reason.SETTINGS


# --- lines that are named


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("Line 3: not JSON", [3]),
        ("line 3 is not JSON", [3]),
        ("Line #3: not JSON", [3]),
        ("[line 3] not JSON", [3]),
        ("Error on line 3: not JSON", [3]),
        ("Validation errors on lines 3, 7 and 9: not JSON", [3, 7, 9]),
        ("Lines 3, 7, and 9 are not JSON", [3, 7, 9]),
        ("lines 3-5 are not JSON", [3, 4, 5]),
        ("Line 3: 'stream' is not available for batched requests.", [3]),
        ("Request 3: tool use is not available for batched requests.", [3]),
        ("Request 3 is a good one", []),
        ("Request 0: no", []),
        ("Not JSON on line 3", [3]),
        ("Not JSON at line 3.", [3]),
        ("Not JSON (line 3)", [3]),
        ("Not JSON (lines 3, 7 and 9).", [3, 7, 9]),
        ("Lines 3 and 3 are alike", [3]),
        ("requests.2.params.max_tokens: Field required", [3]),
        ("requests[0]: no", [1]),
        ("x" * 5000 + " on line 3", [3]),
        ("Invalid value: 'Line 3: x'", []),
        ("It says Line 3: x there", []),
        ("Not JSON: 'see on line 3'", []),
        ("Expecting value: line 1 column 1 (char 0)", []),
        ("line 1 column 5: trailing comma", []),
        ("Line 0: no", []),
        ("Line 3.5: no", []),
        ("Line " + "9" * 40, []),
        ("Deadline 3: no", []),
        ("baseline 3", []),
        ("", []),
        (None, []),
        (3, []),
    ],
)
def test_lines_are_read_from_words_that_begin_or_end_so(words: Any, lines: list[int]) -> None:
    assert refusals.lines_in(words) == lines


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        ({"data": [{"code": "c", "message": "Line 3: no", "line": None}]}, [3]),
        ({"data": [{"code": "c", "message": "Line 3: no", "line": 4}]}, [4]),
        ({"data": [{"code": "c", "message": "no", "line": n} for n in (2, 5)]}, [2, 5]),
        ({"data": [{"code": "c", "message": "lines 3, 7 and 9 are wrong"}]}, [3, 7, 9]),
        ("Line 3: no", [3]),
        (["Line 3: no", "Line 5: no"], [3, 5]),
        (
            {"message": "2 lines are wrong", "errors": [{"line": 3, "message": "a"}, {"line": 5, "message": "b"}]},
            [3, 5],
        ),
        ({"message": "2 are wrong", "code": "x", "errors": {"data": [{"line": 3, "message": "a"}]}}, [3]),
        ({"message": "wrong", "errors": [{"message": "no line"}]}, [None]),
        ({"detail": [{"loc": ["body"], "msg": "Line 3: no"}]}, [3]),
        ({"message": "no", "param": "requests.4.params"}, [5]),
        ({"message": "lines 1-90000000 are wrong"}, list(range(1, 101))),
    ],
)
def test_every_line_that_is_named_is_a_fault_of_its_own(told: Any, lines: list[int | None]) -> None:
    batch = openai.remote_batch({"id": "b", "status": "failed", "errors": told})
    assert batch is not None
    assert [fault.line for fault in batch.faults] == lines
    for dialect in (OPENAI, ANTHROPIC):  # the body of a create that is refused: alone, or within
        assert [fault.line for fault in dialect.faults(told)] == lines
        assert [fault.line for fault in dialect.faults({"error": told})] == lines


def test_the_error_of_a_failed_batch_may_stand_in_the_singular() -> None:
    batch = openai.remote_batch({"id": "b", "status": "failed", "error": {"message": "Line 2: no", "code": "c"}})
    assert batch is not None
    assert batch.faults == (Rejection("c", "Line 2: no", 2),)


def test_the_more_telling_of_two_codes_is_kept() -> None:
    told = {"code": "E17", "type": "insufficient_quota", "message": "m"}
    assert OPENAI.faults({"error": told}) == (Rejection("insufficient_quota", "m", None),)
    assert OPENAI.faults({"error": told | {"type": "other"}}) == (Rejection("E17", "m", None),)
    details = {"type": "rate_limit_error", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}}
    assert ANTHROPIC.faults({"error": details}) == (Rejection("enforced_spend_limit_reached", "m", None),)


def test_a_made_up_vendor_tells_whose_fault_it_is_too() -> None:
    acme = AcmeDialect()
    found = acme.result(b'{"ref": "t", "sorry": "it is not paid", "about": "ask"}')
    assert (found.blame, found.param) == (A, "ask")
    assert [fault.line for fault in acme.faults({"unspeakable": [2, 3]})] == [2, 3]


@given(st.text(alphabet="Lline 0123456789,-andto[](){}:.'\"%$", max_size=700))
def test_any_words_are_read_in_no_time(words: str) -> None:
    assert all(n > 0 for n in refusals.lines_in(words))
    assert topics.blame(ErrorKind.REFUSED, (), words, 400) in Blame


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"code": "insufficient_quota", "message": "no money"}},
        {"detail": "insufficient quota"},
        {"msg": "try later"},
        {"error_msg": "try later"},
        {"reason": "blocked"},
        {"code": 0, "message": "Daily quota reached"},
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_an_error_in_any_member_is_one_where_nothing_is_said(error: dict[str, Any], inside: bool) -> None:
    body: dict[str, Any] = {"choices": [{"message": {"content": ""}}]}
    line = {"custom_id": "t-1", "error": None if inside else error}
    line["response"] = {"status_code": 200, "body": {**body, "error": error} if inside else body}
    assert vendors.dialect("openai").result(json.dumps(line).encode()).error is not None
