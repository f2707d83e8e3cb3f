-- The state file as it is now: what the migrations in schema.py make of a new file, for reading. Nothing runs this; a test compares.
--
-- PRAGMA application_id says that the file is nura's ("nura" in ASCII), PRAGMA user_version how many migrations it has had. All
-- times are unix seconds, by one clock in Python. sqlite-utils keeps its list of applied migrations in _sqlite_migrations.

-- What there is one of: state_id, known to the provider as metadata; oldest_version, the oldest version of this schema whose
-- enqueue, results and status may use the file; listed:ADDRESS, a batch of ours that the list there has shown; digests of options
-- that were found right; secret, under which keys are hashed; layout, 2 where keys are hashes and answers packed; how far retention and
-- packing have come, and the clock that retention believes.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workloads (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Tasks of one lane may share a batch. Records have dialect, endpoint and model '' (the configuration decides when they
-- are dispatched); ready lines carry theirs.
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    workload_id INTEGER NOT NULL REFERENCES workloads (id),
    dialect TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    UNIQUE (workload_id, dialect, endpoint, model)
) STRICT;

-- retry_of: the completed task that this one runs again; it takes its place when it completes.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane_id INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'submitted', 'completed', 'failed', 'cancelled')),
    batch_id INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    superseded_by INTEGER,
    retry_of INTEGER,
    CHECK ((status = 'submitted') = (batch_id IS NOT NULL))
) STRICT;
CREATE INDEX tasks_pending ON tasks (lane_id, not_before, id) WHERE status = 'pending';
CREATE INDEX tasks_batch ON tasks (batch_id, id) WHERE batch_id IS NOT NULL;
CREATE INDEX tasks_retry ON tasks (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX tasks_again ON tasks (lane_id) WHERE retry_of IS NOT NULL AND status = 'pending';
CREATE INDEX tasks_superseded ON tasks (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX tasks_tried ON tasks (lane_id, attempts) WHERE status = 'pending' AND attempts > 0;

-- Written once, never changed: the key as JSON, the record as it came (or a ready line's body).
CREATE TABLE records (
    task_id INTEGER PRIMARY KEY,
    enqueued_at INTEGER NOT NULL,
    key TEXT NOT NULL,
    line BLOB NOT NULL
) STRICT;

-- Which task stands for a key now. "key" is its text form: 1 and "1" are one key.
CREATE TABLE keys (
    workload_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (workload_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE specs (
    revision TEXT PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- parts: what the provider offers for download. spooled: what lies in the spool. marker: the newest page of the provider's list
-- before the create. absent_at, absent_here, missed: when it was first looked for in vain, by the server's clock and by ours, and
-- what was missed. held: why a person has to decide. plan: what its answers set off, as it was when it was claimed; NULL for
-- batches of earlier releases. asked_at: when the provider was last asked after it alone. short_at: when it first came home with
-- fewer answers than the provider counts. ending: how the provider ended it. cancelled: tasks of it that somebody's cancelling of
-- it made 'cancelled', until a person has decided about them. cancel_at: when a person wished it cancelled; cancel_taken_at: when
-- the provider took that. validated_at: when it was first seen that the provider had looked at its requests and took them. Columns
-- after final_at came with later versions.
-- What a batch was expected to come to when it was sent, and what its answers came to once it was reconciled. basis: what that goes
-- by (learned, max_tokens, floor). Money in pico-dollars: expected_cost, NULL where no price is known, and worst_cost, NULL where no
-- bound is. account: whose it is, as the provider says. canary: it shows a new revision before the rest of it is sent.
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane_id INTEGER NOT NULL,
    workload TEXT NOT NULL,
    provider TEXT NOT NULL,
    address TEXT NOT NULL,
    dialect TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    revision TEXT NOT NULL REFERENCES specs (revision),
    tag TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('processing', 'uploaded', 'submitting', 'submitted', 'completed', 'reconciled', 'failed')),
    remote_id TEXT,
    remote_status TEXT,
    requests INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    sha256 TEXT,
    input_file_id TEXT,
    parts TEXT,
    spooled TEXT,
    faults TEXT,
    marker TEXT,
    sent_at INTEGER,
    absent_at INTEGER,
    held TEXT,
    completed INTEGER,
    failed INTEGER,
    answered INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    created_at INTEGER NOT NULL,
    submitted_at INTEGER,
    expires_at INTEGER,
    ended_at INTEGER,
    final_at INTEGER,
    cleaned_at INTEGER,
    plan TEXT,
    absent_here INTEGER,
    missed TEXT,
    asked_at INTEGER,
    short_at INTEGER,
    ending TEXT,
    cancelled INTEGER NOT NULL DEFAULT 0,
    cancel_at INTEGER,
    cancel_taken_at INTEGER,
    cancel_why TEXT,
    rendered TEXT,
    validated_at INTEGER,
    account TEXT,
    basis TEXT,
    expected_input INTEGER,
    expected_output INTEGER,
    expected_cost INTEGER,
    worst_cost INTEGER,
    billed_answers INTEGER,
    billed_input INTEGER,
    billed_output INTEGER,
    billed_cached INTEGER,
    billed_written INTEGER,
    billed_cost INTEGER,
    canary INTEGER NOT NULL DEFAULT 0,
    CHECK (status NOT IN ('submitted', 'completed', 'reconciled') OR remote_id IS NOT NULL),
    CHECK (status NOT IN ('submitting') OR marker IS NOT NULL),
    CHECK ((status IN ('reconciled', 'failed')) = (final_at IS NOT NULL))
) STRICT;
CREATE INDEX batches_open ON batches (status) WHERE final_at IS NULL;
CREATE INDEX batches_unclean ON batches (final_at) WHERE final_at IS NOT NULL AND cleaned_at IS NULL;
CREATE UNIQUE INDEX batches_remote ON batches (provider, address, remote_id) WHERE remote_id IS NOT NULL;
-- Whether a batch on a provider's list is ours is asked by its id alone, for a page of them at a time.
CREATE INDEX batches_remote_id ON batches (remote_id) WHERE remote_id IS NOT NULL;
CREATE INDEX batches_sent ON batches (provider, created_at) WHERE marker IS NOT NULL;
CREATE INDEX batches_cancelled ON batches (id) WHERE cancelled > 0;
CREATE INDEX batches_validated ON batches (revision, workload, validated_at) WHERE validated_at IS NOT NULL;
CREATE INDEX batches_revision ON batches (revision, workload, final_at);
CREATE INDEX batches_answered ON batches (revision, workload) WHERE answered > 0;
CREATE INDEX batches_sent_at ON batches (sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX batches_lane ON batches (lane_id, sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX batches_canary ON batches (revision, workload) WHERE canary = 1;

-- Batches at the provider that are ours and yet no batch of ours: doubles of one intent, or found after they were given
-- up. They are cancelled and followed to their end, so that what they cost is counted.
CREATE TABLE strays (
    provider TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    batch_id INTEGER NOT NULL,
    found_at INTEGER NOT NULL,
    spooled TEXT,
    counted_at INTEGER,
    PRIMARY KEY (provider, remote_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX strays_remote_id ON strays (remote_id);
CREATE INDEX strays_batch ON strays (batch_id);

-- Batches on a provider's list that may be copies of a sending of ours, until it is known. verdict 'copy' bears our tag,
-- 'possible' is like ours by time and size, 'other' is somebody else's.
CREATE TABLE sightings (
    provider TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    batch_id INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('copy', 'possible', 'other')),
    PRIMARY KEY (provider, remote_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sightings_batch ON sightings (batch_id);

-- What became of a task in its last attempt; seq grows with each settling, so a reader can go on where it stopped. taken: the
-- answer of an attempt that had failed, which a person has taken all the same.
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id INTEGER NOT NULL UNIQUE,
    batch_id INTEGER,
    status TEXT NOT NULL CHECK (status IN ('completed', 'failed', 'cancelled')),
    finished_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error_kind TEXT CHECK (error_kind IN ('refused', 'rate_limited', 'provider_error', 'expired', 'cancelled', 'missing', 'invalid_output', 'truncated', 'refusal', 'render', 'lost')),
    error_code TEXT,
    http_status INTEGER,
    error_message TEXT,
    body BLOB,
    taken INTEGER NOT NULL DEFAULT 0,
    CHECK ((status = 'completed') = (error_kind IS NULL))
) STRICT;
-- What failed is found without a look at what did not, by status and by kind of error; what a batch settled by the batch.
CREATE INDEX answers_unanswered ON answers (status) WHERE status <> 'completed';
CREATE INDEX answers_errors ON answers (error_kind, error_code, task_id, status) WHERE status = 'failed';
CREATE INDEX answers_cancelled ON answers (batch_id) WHERE status = 'cancelled';
CREATE INDEX answers_batch ON answers (batch_id);

-- Append-only: one row for each time a task was answered for (or not) by a batch; money in pico-dollars (1e-12 USD),
-- NULL where the model has no known price. stray: the remote id of a double, whose answers were billed and not used. code, said:
-- the provider's, of an attempt without an answer; param: which part of the request it refused. excused: why it counts as no
-- attempt of the task. summed: whoever entered it has added it to "spending"; else the trigger does.
CREATE TABLE attempts (
    task_id INTEGER NOT NULL,
    batch_id INTEGER NOT NULL,
    stray TEXT NOT NULL DEFAULT '',
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    late INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cost INTEGER,
    list_cost INTEGER,
    code TEXT,
    said TEXT,
    param TEXT,
    excused TEXT,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    summed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, batch_id, stray)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_batch ON attempts (batch_id);
CREATE INDEX attempts_refused ON attempts (batch_id) WHERE outcome IN ('refused', 'render');
CREATE INDEX attempts_excused ON attempts (batch_id) WHERE excused IS NOT NULL;
CREATE INDEX attempts_unpriced ON attempts (batch_id) WHERE cost IS NULL AND outcome <> 'render';

-- Append-only: requests that were tried at once, outside of any batch, at list price. outcome is 'unknown', and so is the cost,
-- until the answer has come. at: when it was sent.
CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    lane_id INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'unknown',
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cost INTEGER,
    list_cost INTEGER,
    expected_cost INTEGER,
    worst_cost INTEGER
) STRICT;
CREATE INDEX trials_unpriced ON trials (at) WHERE cost IS NULL;

-- The sums of attempts and trials, which stay when these go. day: when it began (UTC), of a batch's attempts that on which its
-- create was sent; what was never sent is not counted. unanswered: those that gave no answer that was of use. unpriced: those of
-- unknown cost. Triggers keep it, whichever release writes the ledger; past 64 bits a sum stays at the largest.
CREATE TABLE spending (
    day INTEGER NOT NULL,
    lane_id INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    unanswered INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    list_cost INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    PRIMARY KEY (day, lane_id, provider, model)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER attempts_entered AFTER INSERT ON attempts WHEN new.summed = 0 AND new.outcome <> 'render' BEGIN
    INSERT INTO spending (day, lane_id, provider, model, attempts, unanswered, input_tokens, cached_input_tokens, cache_write_tokens,
        output_tokens, cost, list_cost, unpriced)
    SELECT b.sent_at - b.sent_at % 86400, b.lane_id, b.provider, b.model, 1, new.outcome <> 'answered', new.input_tokens,
        new.cached_input_tokens, new.cache_write_tokens, new.output_tokens, coalesce(new.cost, 0), coalesce(new.list_cost, 0),
        new.cost IS NULL
    FROM batches b WHERE b.id = new.batch_id AND b.sent_at IS NOT NULL
    ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, unanswered = unanswered + excluded.unanswered,
        input_tokens = CAST(input_tokens + excluded.input_tokens AS INTEGER),
        cached_input_tokens = CAST(cached_input_tokens + excluded.cached_input_tokens AS INTEGER),
        cache_write_tokens = CAST(cache_write_tokens + excluded.cache_write_tokens AS INTEGER),
        output_tokens = CAST(output_tokens + excluded.output_tokens AS INTEGER),
        cost = CAST(cost + excluded.cost AS INTEGER), list_cost = CAST(list_cost + excluded.list_cost AS INTEGER),
        unpriced = unpriced + excluded.unpriced;
END;

CREATE TRIGGER attempts_corrected AFTER UPDATE ON attempts WHEN new.outcome <> 'render' BEGIN
    INSERT INTO spending (day, lane_id, provider, model, attempts, unanswered, input_tokens, cached_input_tokens, cache_write_tokens,
        output_tokens, cost, list_cost, unpriced)
    SELECT b.sent_at - b.sent_at % 86400, b.lane_id, b.provider, b.model, 0, (new.outcome <> 'answered') - (old.outcome <> 'answered'),
        new.input_tokens - old.input_tokens, new.cached_input_tokens - old.cached_input_tokens,
        new.cache_write_tokens - old.cache_write_tokens, new.output_tokens - old.output_tokens,
        coalesce(new.cost, 0) - coalesce(old.cost, 0), coalesce(new.list_cost, 0) - coalesce(old.list_cost, 0),
        (new.cost IS NULL) - (old.cost IS NULL)
    FROM batches b WHERE b.id = new.batch_id AND b.sent_at IS NOT NULL
    ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, unanswered = unanswered + excluded.unanswered,
        input_tokens = CAST(input_tokens + excluded.input_tokens AS INTEGER),
        cached_input_tokens = CAST(cached_input_tokens + excluded.cached_input_tokens AS INTEGER),
        cache_write_tokens = CAST(cache_write_tokens + excluded.cache_write_tokens AS INTEGER),
        output_tokens = CAST(output_tokens + excluded.output_tokens AS INTEGER),
        cost = CAST(cost + excluded.cost AS INTEGER), list_cost = CAST(list_cost + excluded.list_cost AS INTEGER),
        unpriced = unpriced + excluded.unpriced;
END;

CREATE TRIGGER trials_entered AFTER INSERT ON trials BEGIN
    INSERT INTO spending (day, lane_id, provider, model, attempts, unanswered, input_tokens, cached_input_tokens, cache_write_tokens,
        output_tokens, cost, list_cost, unpriced) VALUES (new.at - new.at % 86400, new.lane_id, new.provider, new.model, 1, new.outcome <> 'answered',
        new.input_tokens, new.cached_input_tokens, new.cache_write_tokens, new.output_tokens, coalesce(new.cost, 0),
        coalesce(new.list_cost, 0), new.cost IS NULL)
    ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, unanswered = unanswered + excluded.unanswered,
        input_tokens = CAST(input_tokens + excluded.input_tokens AS INTEGER),
        cached_input_tokens = CAST(cached_input_tokens + excluded.cached_input_tokens AS INTEGER),
        cache_write_tokens = CAST(cache_write_tokens + excluded.cache_write_tokens AS INTEGER),
        output_tokens = CAST(output_tokens + excluded.output_tokens AS INTEGER),
        cost = CAST(cost + excluded.cost AS INTEGER), list_cost = CAST(list_cost + excluded.list_cost AS INTEGER),
        unpriced = unpriced + excluded.unpriced;
END;

CREATE TRIGGER trials_ended AFTER UPDATE ON trials BEGIN
    INSERT INTO spending (day, lane_id, provider, model, attempts, unanswered, input_tokens, cached_input_tokens, cache_write_tokens,
        output_tokens, cost, list_cost, unpriced) VALUES (new.at - new.at % 86400, new.lane_id, new.provider, new.model, 0, (new.outcome <> 'answered') - (old.outcome <> 'answered'),
        new.input_tokens - old.input_tokens, new.cached_input_tokens - old.cached_input_tokens,
        new.cache_write_tokens - old.cache_write_tokens, new.output_tokens - old.output_tokens,
        coalesce(new.cost, 0) - coalesce(old.cost, 0), coalesce(new.list_cost, 0) - coalesce(old.list_cost, 0),
        (new.cost IS NULL) - (old.cost IS NULL))
    ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, unanswered = unanswered + excluded.unanswered,
        input_tokens = CAST(input_tokens + excluded.input_tokens AS INTEGER),
        cached_input_tokens = CAST(cached_input_tokens + excluded.cached_input_tokens AS INTEGER),
        cache_write_tokens = CAST(cache_write_tokens + excluded.cache_write_tokens AS INTEGER),
        output_tokens = CAST(output_tokens + excluded.output_tokens AS INTEGER),
        cost = CAST(cost + excluded.cost AS INTEGER), list_cost = CAST(list_cost + excluded.list_cost AS INTEGER),
        unpriced = unpriced + excluded.unpriced;
END;

CREATE TABLE counts (
    lane_id INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'submitted', 'completed', 'failed', 'cancelled')),
    superseded INTEGER NOT NULL,
    n INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (lane_id, status, superseded)
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (
    lane_id INTEGER PRIMARY KEY,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    list_cost INTEGER NOT NULL,
    unpriced INTEGER NOT NULL
) STRICT;

CREATE TABLE transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('task', 'batch')),
    lane_id INTEGER,
    batch_id INTEGER,
    from_status TEXT,
    to_status TEXT NOT NULL,
    n INTEGER NOT NULL,
    why TEXT NOT NULL
) STRICT;
CREATE INDEX transitions_batch ON transitions (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX transitions_at ON transitions (at);

-- What persons did: one row for each chunk of a verb's work. what: in words. why: the person's own.
CREATE TABLE actions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    verb TEXT NOT NULL,
    who TEXT NOT NULL,
    workload TEXT,
    batch_id INTEGER,
    n INTEGER NOT NULL,
    what TEXT NOT NULL,
    why TEXT
) STRICT;
CREATE INDEX actions_at ON actions (at);
CREATE INDEX actions_batch ON actions (batch_id) WHERE batch_id IS NOT NULL;

-- Workloads and providers to which nothing is sent until a person releases them, or until a time. origin is empty for a person's
-- hold, and says why for one that nura set by itself: both may stand beside each other. ended_at: when its end was noted.
CREATE TABLE holds (
    scope TEXT NOT NULL CHECK (scope IN ('workload', 'provider')),
    name TEXT NOT NULL,
    origin TEXT NOT NULL DEFAULT '',
    at INTEGER NOT NULL,
    until INTEGER,
    who TEXT NOT NULL,
    why TEXT,
    ended_at INTEGER,
    PRIMARY KEY (scope, name, origin)
) STRICT, WITHOUT ROWID;

-- How a revision of a workload stands. refusals: its batches that were refused in a row, for what no single request is to blame
-- for, the last at refused_at. held: for what nura holds the workload because of it (account, alike, render, search), since held_at.
-- released_at: when a person let it go on, and released_after: the newest batch by then; what was before counts no more. pardoned:
-- for what it had been held then (but for account): what is sent from then on fails one by one for that. refused_after: the newest
-- batch when the last of the refusals was counted: of those under way together one counts. canary: 'passed' once this revision has
-- shown itself.
CREATE TABLE standings (
    workload TEXT NOT NULL,
    revision TEXT NOT NULL,
    refusals INTEGER NOT NULL DEFAULT 0,
    refused_at INTEGER NOT NULL DEFAULT 0,
    held TEXT NOT NULL DEFAULT '',
    held_at INTEGER,
    released_at INTEGER NOT NULL DEFAULT 0,
    released_after INTEGER NOT NULL DEFAULT 0,
    pardoned TEXT NOT NULL DEFAULT '',
    refused_after INTEGER NOT NULL DEFAULT 0,
    canary TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (workload, revision)
) STRICT, WITHOUT ROWID;

-- Tasks of refused batches that may be to blame. how: 'among' others, refused 'alone', or 'named' by the provider. since: when
-- that was; batch_id: in which batch. code, said: the provider's.
CREATE TABLE suspects (
    task_id INTEGER PRIMARY KEY,
    lane_id INTEGER NOT NULL,
    batch_id INTEGER NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('among', 'alone', 'named')),
    since INTEGER NOT NULL,
    code TEXT,
    said TEXT
) STRICT;
CREATE INDEX suspects_queue ON suspects (lane_id, how, since, task_id);

CREATE TABLE runs (
    stage TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    ended_at INTEGER,
    ok_at INTEGER,
    exit_code INTEGER,
    message TEXT
) STRICT, WITHOUT ROWID;

-- The runs of the last 30 days, enqueue's where they failed or read a source. A run without an end was killed, or is at work.
CREATE TABLE past_runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stage TEXT NOT NULL,
    workload TEXT,
    started_at INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    ended_at INTEGER,
    exit_code INTEGER,
    message TEXT
) STRICT;
CREATE INDEX past_runs_started ON past_runs (started_at);

-- A trouble that lasts is said at its onset and then at intervals, not by every run of cron.
CREATE TABLE troubles (
    stage TEXT NOT NULL,
    scope TEXT NOT NULL,
    since INTEGER NOT NULL,
    said_at INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (stage, scope)
) STRICT, WITHOUT ROWID;

-- model '' and endpoint '' stand for the provider as a whole.
CREATE TABLE routes (
    provider TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    paused_until INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    cap INTEGER,
    why TEXT,
    PRIMARY KEY (provider, endpoint, model)
) STRICT, WITHOUT ROWID;

-- What an account's queue takes at once, learned from refusals; model '' stands for all together. cap: in tokens or requests, of
-- which "share" is used. said: whether the cap stood in the provider's words. ceiling: the share at which it last refused, since
-- refused_at. refused_after: the newest batch when that was counted.
CREATE TABLE quotas (
    account TEXT NOT NULL,
    model TEXT NOT NULL,
    unit TEXT NOT NULL CHECK (unit IN ('tokens', 'requests')),
    cap INTEGER NOT NULL,
    share REAL NOT NULL,
    ceiling REAL NOT NULL,
    said INTEGER NOT NULL,
    refused_at INTEGER NOT NULL,
    refused_after INTEGER NOT NULL,
    paused_until INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, model, unit)
) STRICT, WITHOUT ROWID;

-- Whose account a provider's key is, as the provider said last.
CREATE TABLE accounts (
    provider TEXT NOT NULL,
    address TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (provider, address)
) STRICT, WITHOUT ROWID;

-- Why tasks of a workload did not go when dispatch last came by, in words; since when it is for that. model '' stands for all.
CREATE TABLE waits (
    workload TEXT NOT NULL,
    model TEXT NOT NULL,
    why TEXT NOT NULL,
    n INTEGER NOT NULL,
    words TEXT NOT NULL,
    until INTEGER,
    since INTEGER NOT NULL,
    PRIMARY KEY (workload, model, why)
) STRICT, WITHOUT ROWID;

-- The outbox: what the application is still to be told. kind 'row' is a write-back, 'event' a command or webhook; target
-- says which of the workload's receivers. seq: the answer it is about; another answer since then overtakes it. row and
-- row_error, of an event: what became of the row that was written before it. again: how often a row was due
-- again after it was over; of an event, how often it was told of before, under another id. What is done with stands in one narrow
-- index, by task.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('row', 'event')),
    workload_id INTEGER NOT NULL,
    target TEXT NOT NULL,
    type TEXT NOT NULL,
    task_id INTEGER,
    batch_id INTEGER NOT NULL,
    seq INTEGER,
    "row" TEXT,
    row_error TEXT,
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'done', 'dead')),
    outcome TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    said TEXT,
    created_at INTEGER NOT NULL,
    done_at INTEGER,
    again INTEGER NOT NULL DEFAULT 0,
    CHECK ((task_id IS NULL) = (seq IS NULL)),
    CHECK ((status = 'pending') = (done_at IS NULL))
) STRICT;
CREATE INDEX deliveries_due ON deliveries (workload_id, kind, target, id) WHERE status = 'pending';
CREATE INDEX deliveries_task ON deliveries (task_id, kind, target, id) WHERE status = 'pending' AND task_id IS NOT NULL;
CREATE INDEX deliveries_over ON deliveries (task_id) WHERE status <> 'pending';
CREATE INDEX deliveries_batch ON deliveries (batch_id) WHERE status = 'pending' AND kind = 'row';
CREATE INDEX deliveries_dead ON deliveries (workload_id, kind, target) WHERE status = 'dead';
CREATE INDEX deliveries_told ON deliveries (done_at) WHERE task_id IS NULL AND status = 'done';

-- A database or receiver that cannot take anything now rests as a whole.
CREATE TABLE receivers (
    target TEXT PRIMARY KEY,
    paused_until INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    why TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which task stands for a key now, by the hash of workload and key, which only who has the file's secret (meta) can tell. It may
-- stand in any level. digest: of the line; empty where the key was forgotten. Files of an earlier layout have "keys".
CREATE TABLE hashes (
    level INTEGER NOT NULL,
    hash BLOB NOT NULL,
    task_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (level, hash, task_id)
) STRICT, WITHOUT ROWID;

-- With what the answers of a revision are packed: its spec, and the vendor's response around an answer.
CREATE TABLE dictionaries (
    id INTEGER PRIMARY KEY,
    revision TEXT NOT NULL UNIQUE,
    content BLOB NOT NULL
) STRICT;

-- When answers came in: the first of those that were settled in a second, by which "nura results --since" finds where to begin. Files
-- of an earlier layout have an index "answers_finished" for it.
CREATE TABLE moments (
    at INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT;

-- How many hashes a level has. gone: up to which hash they went on into the next one, while they do.
CREATE TABLE levels (
    level INTEGER PRIMARY KEY,
    n INTEGER NOT NULL,
    gone BLOB
) STRICT;

-- Tasks that a person wished forgotten while they were under way: it is done once they are not. again: whether their keys may then be
-- enqueued again. What was forgotten has neither record nor answer; purged says how many tasks of a queue that are.
CREATE TABLE purges (
    task_id INTEGER PRIMARY KEY,
    again INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE purged (
    lane_id INTEGER PRIMARY KEY,
    n INTEGER NOT NULL
) STRICT;

-- Batches of which the provider is to keep nothing once they are final, for what was forgotten of them.
CREATE TABLE purged_batches (
    batch_id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
