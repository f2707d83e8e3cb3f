"""What an error is about, whatever its vendor: money, a model, an outage, too much at once. Pure, by codes and words.

Codes are open lists, and every service has its own: a code is taken for what stands in it. A message counts where the code
says nothing of its own, and only by how it begins: further in it may quote the record, which can say anything.

The words are the vendors' own: OpenAI (error codes guide; openai-python#2084; curator#111), Anthropic (API reference, errors;
claude-code#66314; curator#296), Azure (learn.microsoft.com, questions 2285577 and 2108663), DeepSeek (continue#9853),
OpenRouter (qwen-code#73, openclaude#43, forgecode#571), xAI (continue#10373), Z.AI (docs.z.ai, api-code), DashScope, Moonshot,
Groq, Cerebras, LiteLLM.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from nura_cli.errors import Rejection
from nura_cli.states import Blame, ErrorKind, Reason


class Topic(StrEnum):
    """What an error is about: the closed list that all of them come down to."""

    ACCOUNT = "account"  # money, quota or the key
    ACCESS = "access"  # a model, a permission or a region that the account lacks
    QUEUE = "queue"  # more is enqueued than the vendor takes
    PACE = "pace"  # too many requests or tokens a minute
    SIZE = "size"  # a batch, or the file of one, is too large
    REQUEST = "request"  # this one request is larger than any minute's allowance
    OUTAGE = "outage"  # the vendor's own failure


# Patterns are compiled when they are first asked for: most runs meet no error, and that takes longer than all else here.
# Codes, in lower case and without anything but letters and digits. The first that fits counts.
_CODES: tuple[tuple[Topic, str], ...] = (
    (Topic.QUEUE, (r"enqueued|^tokenlimitexceeded|queue(?:is)?(?:full|limit)|toomanybatch")),
    # Cerebras' token_quota_exceeded and DashScope's Throttling.AllocationQuota are about a minute, and not about money.
    (
        Topic.PACE,
        (r"ratelimit|throttl|ratequota|(?:token|request)s?quota|perminute|toomany(?:requests|tokens)|concurren"),
    ),
    (
        Topic.ACCOUNT,
        (
            r"^(?!.*(?:detect|guardrail|redact|sensitive|moderat|(?<!a)pii)).*(?:quota|billing|credit(?!cards?(?!required|declined)|score)"
            r"|(?<!token)(?<!thinking)budget(?!token)|(?<!load)balance|payment(?!information(?:block|found|leak))|(?<!su)spend|usagelimit"
            r"|arrear|overdue|unpaid|prepaid|recharge|apikey)"
            r"|authenti|credential|unauthori[sz]ed|accessterminated|^111[0-3]$|^1121$"
            r"|(?:account|organi[sz]ation|project|workspace|subscription|user)(?:is|has|been|not|in)*"
            r"(?:active|deactivated|disabled|suspended|locked|blocked|frozen|expired|terminated|restricted)"
        ),
    ),
    (
        Topic.ACCESS,
        (
            r"(?:model|deployment|engine)\w*?(?:not(?:found|exist|support|allow|avail|access|deploy|enabled)|unavailable|unsupported"
            r"|deprecated|decommissioned|retired|denied|notin)|(?:nosuch|unsupported|unknown|invalid|deprecated)(?:model|deployment|engine)$"
            r"|permission|forbidden|accessdenied|country|region|territory|operationnotsupported|mustbeverified"
        ),
    ),
    (
        Topic.SIZE,
        (
            r"^(?:request|file|batch|body|payload)(?:body|file|entity|size)?(?:is)?too(?:large|big)|toomany(?:tasks|lines|rows|inputs)"
            r"|^(?:file|batch|body|payload)size|requestentitytoolarge|max(?:imum)?filesize"
        ),
    ),
    (
        Topic.OUTAGE,
        (
            r"servererror|internal(?!.*invalid)|unavailable|overload|apierror|apiconnection|timeout|timedout|badgateway|serverbusy"
        ),
    ),
)
_ABOUT_A_REQUEST = (
    r"invalid(?!request|argument)|missing|param|value|string|integer|decimal|array|json|content|polic|context|length|prompt"
    r"|image|schema|duplicate|mismatch|unsupported|unrecogni"
)
"""Codes that name what is wrong with a request: its words are not looked into."""
_STATUSES = {401: Topic.ACCOUNT, 402: Topic.ACCOUNT, 403: Topic.ACCESS, 413: Topic.SIZE, 429: Topic.PACE}
_TELLING = frozenset({None, 200, 400, 402, 403, 429})
"""Statuses with which a message about money or the key may come; 401 and 402 need none."""


def _starting(*patterns: str) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)


_LEAD = (
    r"(?:(?:sorry|your|this|the|user|(?:account|organi[sz]ation|workspace|project|team)(?:'s)?|monthly|daily|weekly|current|free|prepaid"
    r"|remaining|total|available|api|x)[ ,-]+)*"
)
_HAVE = (
    r"(?:credit balance|balance|credits?(?![ -](?:card|score))|funds|quota|allowance|budget|spend(?:ing)?(?: limit| cap)?|usage limits?"
    r"|(?:hard |soft )limit)"
)
_ACCOUNT = r"(?:account|organi[sz]ation|workspace|project|team|subscription|plan|trial|tier)"
_KEY = r"(?:api|subscription)[ -_]?key"
_OF_A_RECORD = (
    r"(?:prompts?|inputs?|outputs?|messages?|requests?|contents?|texts?|files?|fields?|documents?|data|images?|names?|numbers?|values?"
    r"|parameters?|statements?|details|information|descriptions?|holders?|schemas?|detected|found|contains?|must|should|cannot)\b"
)
"""What stands behind a word for an account, or for money, where neither is spoken of ("project files", "budget field")."""
_NAMED = (
    r"(?:(?: (?:\([^)]{0,100}\)|<[^>]{0,100}>|[`'\"][^`'\"]{1,100}[`'\"]|(?=\S*[\d_:/@-])[^\s'\"]{1,100}"
    r"|(?:associated with|linked to|of|for|behind) (?:(?:this|your|the|api|x)[ -])*(?:key|token|request))){0,2}"
    rf"|(?: (?!{_OF_A_RECORD}|(?:does|do|doesn't|access|has|is|was|are|and|or)\b)[^\s'\"]{{1,100}})?)"
)
"""A name or an id of an account, or whose it is: one plain word at most."""
_GIVEN = r"(?: (?:that )?(?:you )?(?:have )?(?:provided|supplied|given|used|sent|passed))?"
_IS = (
    r"(?: (?:is|was|has|had|been|being|isn't|not|now|currently|temporarily|permanently|automatically|already|still|in|on|marked|flagged"
    r"|set|status|state|as|and|due|to))*"
)
_SPENT = r"(?:reached|exceeded|exhausted|used up|depleted|run out|ran out|too low|insufficient|empty|not enough|n't enough|negative|zero|expired)"
_SHUT = (
    r"(?:not active|no longer active|inactive|not activated|deactivated|disabled|suspended|locked|blocked|frozen|terminated|restricted|banned"
    r"|closed|archived|deleted|cancell?ed|lapsed|ended|(?:in )?arrears|overdue|past due|unpaid|expired|revoked|exhausted|insufficient)"
)
_BECAUSE = r"(?:[^'\"`{}<>:\n]{0,100}?\b(?:because|since|as) )?"
_MONEY = _starting(
    # Your credit balance is too low; Monthly spend limit reached; Quota exceeded; Account balance is insufficient.
    rf"{_BECAUSE}{_LEAD}{_HAVE}(?: (?!{_OF_A_RECORD})[\w-]+){{0,4}}? {_SPENT}\b",
    # Your account is not active; This organization has been disabled; The account has insufficient funds; Your free trial has ended.
    rf"{_BECAUSE}{_LEAD}(?:{_ACCOUNT} )?{_ACCOUNT}{_NAMED}{_IS} {_SHUT}\b",
    rf"{_BECAUSE}{_LEAD}{_KEY}{_GIVEN}{_NAMED}{_IS} (?:{_SHUT}|not valid|invalid|incorrect|not found)\b",
    # You exceeded your current quota; You have reached your specified API usage limits; Your organization has run out of credits;
    # Your team 0f1e has either used all available credits or reached its monthly spending limit.
    rf"{_BECAUSE}(?:you|this request|{_LEAD}(?:{_ACCOUNT}|user|{_KEY}){_NAMED})(?:'ve| have| has)? (?:already |either )?"
    r"(?:reached|exceeded|would exceed|hit|used (?:up|all)|exhausted|run out of|insufficient|no|not enough)"
    rf" (?:all )?(?:of )?(?:(?:your|its|their|the) )?(?:[\w'-]+ ){{0,4}}?{_HAVE}\b",
    rf"(?:insufficient|not enough|out of|more|zero|negative) (?:account |user |api |prepaid |remaining |call volume |available )*{_HAVE}\b",
    rf"no (?:account |user |api |prepaid |remaining |available )*{_HAVE}(?: (?:left|remaining|available|on|for)\b|[.,;:!(]|$)",
    rf"{_LEAD}key(?:'s)? (?:(?:credit|spend(?:ing)?|usage|total|daily|weekly|monthly) )*limit (?:has been |was |is )?(?:exceeded|reached)",  # OpenRouter
    r"billing (?:hard |soft )?(?:limit|is not)|payment (?:required|is required|overdue|failed)|this request requires more credits",
    r"(?:a |your |no |missing |invalid )?(?:valid )?payment method (?:is |was |on file |found |has been )*(?:required|missing|declined|expired)|no (?:valid )?payment method",
    r"(?:incorrect|invalid|wrong|expired|missing|no|unknown|revoked) (?:x-)?(?:api|subscription)[- ]?key|you didn't provide an api key",
    r"the api_key client option must be set",
    r"access denied due to invalid subscription key|authentication (?:fails|failed|required|error)|unauthori[sz]ed\b",
    r"invalid (?:authentication|authorization|bearer|access token|credentials)|access denied, please make sure your account is in good standing",
    r"the free tier of (?:the|this) model has been exhausted",
    r"[\u4e00-\u9fff]{0,12}?(?:余额不足|欠费|额度不足|额度已用[尽完]|配额不足)",  # One API, Z.AI: no balance left, in arrears, no quota left
)
_OF_A_MINUTE = r"\b(?:per[ -](?:minute|second)|rate limits?|(?:tokens|requests) per|tpm|rpm)\b"
"""Words about a pace, and not about money, however they begin."""
_MODEL = (
    r"(?:does|do|did) not exist|doesn't exist|(?:was |is |could |can)?not (?:be )?found|is not available|is not accessible"
    r"|is(?: currently)? unavailable|is not enabled|is not supported(?! with| when| for)|has been (?:deprecated|decommissioned|retired|shut down)"
    r"|is deprecated|no longer (?:available|supported|exists)"
)
_ACCESS = _starting(
    rf"(?:the |this )?(?:requested |specified |provided )?(?:model|deployment|engine)\b(?!:)[^\n]{{0,120}}?(?:{_MODEL})",
    r"(?:the )?api deployment for this resource does not exist|no such (?:model|deployment)|(?:unknown|unsupported|invalid) model\b"
    r"|[\w./:@-]+ is not a valid model|no endpoints found for|your plan does not include",
    r"(?:the )?project\b.{0,100}? does not have access to model|your organization must be verified",
    r"you (?:do not|don't|are not|aren't) (?:have (?:access|permission|the required permission)|allowed|authorized|permitted)",
    r"(?:your|this|the) (?:api key|key|organization|account|project|workspace|user) (?:does not|doesn't|is not|isn't) (?:have (?:access|permission)|allowed|authorized|permitted)",
    r"country, region,? or territory not supported|permission denied|access denied|request not allowed|.{0,40}is not available in your (?:country|region)",
)
_QUEUE = _starting(
    r"(?:the |your )?(?:total |maximum |max )?(?:number of )?enqueued (?:prompt )?(?:token|request)s?\b",
    r"(?:too many|(?:the )?(?:maximum )?number of) (?:[\w-]+ ){0,3}?(?:batch(?:es)?|batch jobs|jobs|requests|tokens) (?:are |is |already |currently )*"
    r"(?:in (?:the |your )?(?:batch |processing )*queue|enqueued|queued|in progress|in_progress|being processed|in flight|waiting|under way|has surpassed|exceeds? the (?:queue|enqueued))",
    r"(?:the |your )?(?:batch |processing |request )*queue (?:is |was )?(?:full|limit)|(?:the |your )?(?:batch )?queue (?:size )?(?:limit|has reached)",
    r"(?:you(?:'ve| have)? (?:reached|exceeded) )?(?:the |your )?(?:max(?:imum)? |limit |number |on |of |allowed )*"
    r"(?:enqueued\b|(?:(?:concurrent|active|pending|queued|running|in[- ]progress) (?:batch |batches|jobs|requests)|batches|batch jobs)\b)",
    r"(?:the |this |your )?(?:batch|request|job)s? (?:would )?(?:exceed|surpass)\w* [^'\"]{0,60}?(?:enqueued|queue)|too many (?:batches|batch jobs)",
)
_SIZE = _starting(
    r"(?:the |your |this |input |batch |request |uploaded |jsonl )*(?:file|batch|body|payload|upload|request entity|entity|request)(?: file| size| body)*"
    r"(?: of [\d.,]+ ?\w+)?,? (?:is |was |are |has |contains |with )?(?:[\d.,]+ ?\w+(?: of (?:data|input))?,? (?:and |which )?(?:is |are )?)?"
    r"(?:too (?:large|big|many (?:requests|lines|tasks|rows|items))|exceed(?:s|ed)?\b|larger than|over the|more than)",
    r"(?:the )?max(?:imum)?\.? (?:allowed )?(?:file |batch |request |upload |body |payload |content )*size|too many (?:requests|lines|tasks|rows) in (?:the |this |your |one |a )?(?:batch|file)",
    r"(?:the )?(?:max(?:imum)? )?number of (?:requests|lines|tasks|rows)(?: (?:in|per) (?:the |this |your |a )?(?:batch|file))? (?:is )?(?:exceed|too|over|[\d,]+)",
    r"requests: list should have at most",
)
_OUTAGE = _starting(
    r"(?:the )?(?:server|service|engine|api|model|upstream|system|backend)s? (?:had an error|has an error|encountered|is (?:currently |temporarily )?"
    r"(?:overloaded|busy|unavailable|down)|(?:temporarily )?unavailable|overloaded|error\b|timed out)",
    r"(?:an? )?(?:unexpected |unknown )?internal (?:server |service )?(?:error|failure)|overloaded|service (?:temporarily )?unavailable|bad gateway|gateway time-?out",
    r"an error occurred while processing|something went wrong|we (?:are|'re) (?:currently )?experiencing|temporar(?:y|ily)|(?:please )?(?:try|retry)(?: again)? later",
)
_WORDS = ((Topic.QUEUE, _QUEUE), (Topic.SIZE, _SIZE), (Topic.ACCESS, _ACCESS), (Topic.OUTAGE, _OUTAGE))
_LATER = r"(?:try|retry)(?: your request)?(?: again)? (?:later|in (?:a|an|some|a few) \w+)[.!]?$"
_NO_BATCH = r"\b(?:tokens?|context|prompt|messages?|image|characters|rate|quota|timeout|deadline|seconds?|minutes?)\b"
_OVERSIZED = r"request too large for \S|.{0,200}?\blimit:? (\d[\d,]*),? requested:? (\d[\d,]*)"
_WRAPPING = r"(?:[^:{\n]{1,80}: ){0,3}http \d{3}: |error code: \d{3} - |(?:permission|resource)-(?:denied|exhausted): |[\w.]{0,60}(?:error|exception) ?[:-] ?|\d{3}:? (?=\S)|[-:] "
_SAID_CODE = r"[a-z]+(?:_[a-z]+)+(?=[:.,;]|$| -)"
_WITHIN = r"\{\s*['\"](?:type|error|message|code|detail)['\"].{0,200}?['\"]message['\"]\s*:\s*['\"]"
_MOST_WORDS = 600


def _words(message: str | None) -> str:
    """Return how a message begins, in lower case: without what nura, or a gateway that passes it on, put before it."""
    words = " ".join((message or "")[:_MOST_WORDS].casefold().replace("\u2019", "'").split())
    for _ in range(8):
        if (found := re.match(_WRAPPING, words) or re.match(_WITHIN, words)) is None:
            break
        words = words[found.end() :]
    return words


def topic(codes: Sequence[str], message: str | None, status: int | None = None) -> Topic | None:
    """Return what an error is about, or None for a request of its own and for what nobody can classify.

    Args:
        codes: the vendor's, the most telling first.
        status: of HTTP, if there is one.
    """
    words, names = _words(message), [_name(code) for code in codes]
    if oversized(message):
        return Topic.REQUEST
    vague = _is_vague(codes)
    if vague and status in _TELLING and re.match(_MONEY, words) and not re.search(_OF_A_MINUTE, words):
        return Topic.ACCOUNT
    if (status == 404 or any("notfound" in name for name in names)) and words.startswith("model: "):  # Anthropic
        return Topic.ACCESS
    said = (
        re.match(_SAID_CODE, words) if status in (402, 403, 429) else None
    )  # Anthropic: "enforced_spend_limit_reached: this …"
    by_code = [found for name in (*names, *([_name(said[0])] if said else [])) if (found := _by_code(name))]
    if by_code:
        return Topic.ACCOUNT if Topic.ACCOUNT in by_code else by_code[0]
    for number in (status, *(int(name) for name in names if re.fullmatch("[1-5][0-9][0-9]", name))):
        if number is not None and (number in _STATUSES or number >= 500):
            return _STATUSES.get(number, Topic.OUTAGE)
    if not vague:
        return None
    return next((found for found, pattern in _WORDS if re.match(pattern, words) and _fits(found, words)), None)


def _name(code: str) -> str:
    return re.sub(r"[^a-z0-9]", "", code[:_MOST_WORDS].lower())


def _is_vague(codes: Sequence[str]) -> bool:
    """Return whether no code names what is wrong with a request: then the words count."""
    return not any(re.search(_ABOUT_A_REQUEST, _name(code)) for code in codes)


def _by_code(name: str) -> Topic | None:
    return next((found for found, pattern in _CODES if re.search(pattern, name)), None)


def _fits(found: Topic, words: str) -> bool:
    """Return whether words about a size are about a batch's: those about tokens are about one request, or about a pace."""
    return found is not Topic.SIZE or not re.search(_NO_BATCH, words)


def oversized(message: str | None) -> bool:
    """Return whether a request was refused since it asks for more than any minute allows (OpenAI, Groq): so it would be again."""
    found = re.match(_OVERSIZED, _words(message))
    if found is None or found[1] is None:
        return found is not None
    return int(found[2].replace(",", "")) > int(found[1].replace(",", ""))


def blame(kind: ErrorKind, codes: Sequence[str], message: str | None, status: int | None) -> Blame:
    """Return whose fault the error of a single request is, as far as its words tell.

    Args:
        kind: what nura calls it.
        codes, message, status: as of :func:`topic`.
    """
    if kind in (ErrorKind.EXPIRED, ErrorKind.CANCELLED):
        return Blame.TASK
    found = topic(codes, message, status)
    if found is Topic.REQUEST and kind is not ErrorKind.PROVIDER_ERROR:
        return Blame.TASK
    if found is Topic.ACCOUNT:
        return Blame.ACCOUNT
    unsure = found in (Topic.ACCESS, Topic.PACE, Topic.OUTAGE) or kind in (
        ErrorKind.PROVIDER_ERROR,
        ErrorKind.RATE_LIMITED,
    )
    return Blame.UNSURE if unsure else Blame.TASK


_REASONS = {
    Topic.ACCOUNT: Reason.SETTINGS,
    Topic.ACCESS: Reason.SETTINGS,
    Topic.QUEUE: Reason.TOO_MUCH,
    Topic.PACE: Reason.TOO_MUCH,
    Topic.SIZE: Reason.TOO_LARGE,
    Topic.OUTAGE: Reason.OUTAGE,
}


def reason(fault: Rejection, known: Mapping[str, Reason]) -> Reason:
    """Return what a fault of a refused batch comes down to.

    Args:
        known: by codes that the vendor documents.
    """
    codes = (fault.code,) if fault.code else ()
    found = topic(codes, fault.message)
    if found is Topic.ACCOUNT:
        return Reason.SETTINGS
    if (documented := known.get((fault.code or "").lower())) is not None:
        return documented
    if found is Topic.SIZE and fault.line is not None:  # a line is too large, and not the batch
        return Reason.CONTENT
    if found is not None:
        return _REASONS.get(found, Reason.CONTENT)
    passing = fault.line is None and _is_vague(codes) and re.search(_LATER, _words(fault.message))
    return Reason.OUTAGE if passing else Reason.CONTENT


_FILE = (
    r"(?:(?:the |this |your |input |request |training |batch |uploaded |specified |provided |given )*file"
    r"(?:[ _-]?id)?(?: (?:with )?(?:id:? )?(?:['\"`][^'\"`]{1,200}['\"`]|(?=\S*[\d_-])[\w.-]{1,200}))?)"
)
_BUSY = r"['\"`]?(?:being (?:processed|uploaded|imported)|processing|pending|running|uploading|importing|queued|in progress)['\"`]?"
_STATE = r"(?:(?:its |the |current )*(?:status|state)(?: is|:| =|=)? ?)"
_READY = r"(?:ready|(?:fully )?(?:processed|imported|uploaded)|available|in (?:a |the )?['\"`]?processed['\"`]?(?: state| status)?)"
_WAIT = (
    r"(?:(?:please )?(?:try|retry|wait)(?: (?:again|later|until|once|when|after|before|for|in|a|an|few|some|\d+|minutes?|seconds?"
    r"|moments?|while|it|the|file|is|has|been|to|be|processed|processing|ready|complete[sd]?|finish(?:es|ed)?|your|request|and|batch"
    r"|creating))*)"
)
_NOT_READY = (
    rf"(?:{_FILE} (?:is not|isn't|is still not|has not|hasn't)(?: yet)?(?: been)? {_READY}(?: yet)?(?: for (?:use|processing|batch(?:es)?))?"
    rf"|{_FILE}(?:'s)? (?:is )?(?:(?:currently |still )*)(?:in )?(?:a )?{_STATE}?{_BUSY}(?: (?:state|status))?"
    rf"|(?:the )?(?:status|state) of {_FILE} is (?:still )?{_BUSY})"
    rf"(?:[ .,;:!(-]*(?:{_STATE}{_BUSY}|{_WAIT}))*[ .!)]*"
)
"""Azure (openai-dotnet#312), and how others would say it: words about the state of a file, and nothing else."""
_NOT_READY_CODE = r"file(?:is)?not(?:yet)?(?:ready|processed)|filepending|fileprocessing"


def file_not_ready(code: str | None, message: str | None, status: int | None = None) -> bool | None:
    """Return whether a create was refused since its request file is not processed yet: the same one is taken later.

    Returns:
        None where neither the code nor the words tell what it was refused for.
    """
    codes = (code,) if code else ()
    if topic(codes, message, status) is not None:
        return False
    if re.search(_NOT_READY_CODE, _name(code or "")) or re.fullmatch(_NOT_READY, _words(message)):
        return True
    return None if _is_vague(codes) else False
