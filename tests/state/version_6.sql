PRAGMA application_id = 1853190753;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'nura','0001','2026-11-24 10:55:28.308020+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'nura','0002','2026-11-25 18:57:49.930039+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'nura','0003','2026-11-25 22:35:31.655093+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'nura','0004','2026-11-26 01:24:32.461176+00:00');
INSERT INTO "_sqlite_migrations" VALUES(5,'nura','0005','2026-11-26 16:15:32.636611+00:00');
INSERT INTO "_sqlite_migrations" VALUES(6,'nura','0006','2026-11-27 12:10:29.783474+00:00');
CREATE TABLE accounts (
    provider TEXT NOT NULL,
    address TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (provider, address)
) STRICT, WITHOUT ROWID;
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
    body BLOB, taken INTEGER NOT NULL DEFAULT 0,
    CHECK ((status = 'completed') = (error_kind IS NULL))
) STRICT;
INSERT INTO "answers" VALUES(1,1,1,'completed',1800000000,1,NULL,NULL,NULL,NULL,X'7B226964223A2263686174636D706C2D326539343962653264326666313166616135616534396632222C226F626A656374223A22636861742E636F6D706C6574696F6E222C2263726561746564223A313830303030303030312C226D6F64656C223A226770742D342E312D6D696E69222C2263686F69636573223A5B7B22696E646578223A302C226D657373616765223A7B22726F6C65223A22617373697374616E74222C22636F6E74656E74223A22496E2073686F72743A205265706561743A207265636F7264206E756D6265722030205B31316635663165635D222C227265667573616C223A6E756C6C2C22616E6E6F746174696F6E73223A5B5D7D2C226C6F6770726F6273223A6E756C6C2C2266696E6973685F726561736F6E223A2273746F70227D5D2C227573616765223A7B2270726F6D70745F746F6B656E73223A362C22636F6D706C6574696F6E5F746F6B656E73223A31312C22746F74616C5F746F6B656E73223A31372C2270726F6D70745F746F6B656E735F64657461696C73223A7B226361636865645F746F6B656E73223A302C22617564696F5F746F6B656E73223A307D2C22636F6D706C6574696F6E5F746F6B656E735F64657461696C73223A7B22726561736F6E696E675F746F6B656E73223A302C22617564696F5F746F6B656E73223A302C2261636365707465645F70726564696374696F6E5F746F6B656E73223A302C2272656A65637465645F70726564696374696F6E5F746F6B656E73223A307D7D2C22736572766963655F74696572223A2264656661756C74222C2273797374656D5F66696E6765727072696E74223A6E756C6C7D',0);
INSERT INTO "answers" VALUES(2,3,1,'completed',1800000000,1,NULL,NULL,NULL,NULL,X'7B226964223A2263686174636D706C2D353863316634396138653761333039663133366135616132222C226F626A656374223A22636861742E636F6D706C6574696F6E222C2263726561746564223A313830303030303030312C226D6F64656C223A226770742D342E312D6D696E69222C2263686F69636573223A5B7B22696E646578223A302C226D657373616765223A7B22726F6C65223A22617373697374616E74222C22636F6E74656E74223A22496E2073686F72743A205265706561743A207265636F7264206E756D6265722032205B34383533626130305D222C227265667573616C223A6E756C6C2C22616E6E6F746174696F6E73223A5B5D7D2C226C6F6770726F6273223A6E756C6C2C2266696E6973685F726561736F6E223A2273746F70227D5D2C227573616765223A7B2270726F6D70745F746F6B656E73223A362C22636F6D706C6574696F6E5F746F6B656E73223A31312C22746F74616C5F746F6B656E73223A31372C2270726F6D70745F746F6B656E735F64657461696C73223A7B226361636865645F746F6B656E73223A302C22617564696F5F746F6B656E73223A307D2C22636F6D706C6574696F6E5F746F6B656E735F64657461696C73223A7B22726561736F6E696E675F746F6B656E73223A302C22617564696F5F746F6B656E73223A302C2261636365707465645F70726564696374696F6E5F746F6B656E73223A302C2272656A65637465645F70726564696374696F6E5F746F6B656E73223A307D7D2C22736572766963655F74696572223A2264656661756C74222C2273797374656D5F66696E6765727072696E74223A6E756C6C7D',0);
INSERT INTO "answers" VALUES(3,2,1,'failed',1800000000,1,'refused','invalid_request_error',400,'too long',X'7B226572726F72223A7B226D657373616765223A22746F6F206C6F6E67222C2274797065223A22696E76616C69645F726571756573745F6572726F72222C22706172616D223A6E756C6C2C22636F6465223A22696E76616C69645F726571756573745F6572726F72227D7D',0);
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
    list_cost INTEGER, code TEXT, said TEXT, param TEXT, excused TEXT, cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, batch_id, stray)
) STRICT, WITHOUT ROWID;
INSERT INTO "attempts" VALUES(1,1,'',1800000000,'answered',0,6,0,11,10000000,20000000,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(1,1,'batch_second',1800000700,'late',1,6,4,11,9000000,18000000,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(1,1,'batch_third',1800000700,'late',1,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(2,1,'',1800000000,'refused',0,0,0,0,0,0,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(2,1,'batch_second',1800000700,'late',1,6,0,3,4000000,8000000,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(2,1,'batch_third',1800000700,'late',1,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(3,1,'',1800000000,'answered',0,6,0,11,10000000,20000000,NULL,NULL,NULL,NULL,0);
INSERT INTO "attempts" VALUES(3,1,'batch_third',1800000700,'late',1,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,0);
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
    cleaned_at INTEGER, plan TEXT, absent_here INTEGER, missed TEXT, asked_at INTEGER, short_at INTEGER, ending TEXT, cancelled INTEGER NOT NULL DEFAULT 0, cancel_at INTEGER, cancel_taken_at INTEGER, cancel_why TEXT, rendered TEXT, validated_at INTEGER, account TEXT, basis TEXT, expected_input INTEGER, expected_output INTEGER, expected_cost INTEGER, worst_cost INTEGER, billed_answers INTEGER, billed_input INTEGER, billed_output INTEGER, billed_cached INTEGER, billed_written INTEGER, billed_cost INTEGER, canary INTEGER NOT NULL DEFAULT 0,
    CHECK (status NOT IN ('submitted', 'completed', 'reconciled') OR remote_id IS NOT NULL),
    CHECK (status NOT IN ('submitting') OR marker IS NOT NULL),
    CHECK ((status IN ('reconciled', 'failed')) = (final_at IS NOT NULL))
) STRICT;
INSERT INTO "batches" VALUES(1,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','8985d268b16450acd8c3','reconciled','batch_f640ca1e134605a160660d116a8d4dce','completed',3,543,'6a7eac3e872d28ae58e9b38b349e55979195b2317e30985e7bd5296375b65b57','file-afba3b076be1221068e7b909','{"output": "file-4d62edee476e950d8971e254", "error": "file-3054c52e380e2907806daf71"}','{"output": {"bytes": 1568, "sha256": "3be20328d8457a16abc9c0813ee81f9bc89a19143d300958e4b0c766dc3f7d8a"}, "error": {"bytes": 284, "sha256": "b499254edccda418bd528b1e4f7f5cafe8fd7f38908a3b1039eebeab90eb4962"}}',NULL,'{"id": null, "created_at": null, "date": 1800000001, "account": "org-1ece53aae52863977f36", "fingerprint": "65fc707af8a510fff4e6ce07a41ce510"}',1800000001,NULL,NULL,2,1,2,NULL,1800000000,1800000001,1800086401,1800000001,1800000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "batches" VALUES(2,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','1a119f4bc0c328d36f0c','submitted','batch_b54ab0ae2721d4fd85eaee6fd030eef4','validating',1,181,'57313f939909d3396d8a14930f8494c43395e78b69b84472f732a2d007642f9b','file-64d47a68baa284f5005a97b5',NULL,NULL,NULL,'{"id": "batch_f640ca1e134605a160660d116a8d4dce", "created_at": 1800000001, "date": 1800000001, "account": "org-1ece53aae52863977f36", "fingerprint": "65fc707af8a510fff4e6ce07a41ce510"}',1800000001,NULL,NULL,NULL,NULL,0,NULL,1800000000,1800000001,1800086401,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "batches" VALUES(3,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','tag-of-version-3-0','processing',NULL,NULL,2,300,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,1800000600,NULL,NULL,NULL,NULL,NULL,'{"rows": ["completed"], "events": {}}',NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "batches" VALUES(4,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','tag-of-version-3-1','uploaded',NULL,NULL,2,300,NULL,'file-1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,1800000600,NULL,NULL,NULL,NULL,NULL,'{"rows": ["completed"], "events": {}}',NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "batches" VALUES(5,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','tag-of-version-3-2','submitting',NULL,NULL,2,300,NULL,'file-2',NULL,NULL,NULL,'{"id": null, "created_at": null, "date": null, "account": null}',1800000600,NULL,NULL,NULL,NULL,0,NULL,1800000600,NULL,NULL,NULL,NULL,NULL,'{"rows": ["completed"], "events": {}}',NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "batches" VALUES(6,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','tag-of-version-3-3','failed',NULL,NULL,2,300,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'the provider gave no reason',1800000600,NULL,NULL,NULL,1800000600,NULL,'{"rows": ["completed"], "events": {}}',NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "batches" VALUES(7,1,'echo','main','openai http://127.0.0.1:46497/v1','openai','/v1/chat/completions','gpt-4.1-mini','5b1b64860314','tag-of-version-3-4','completed','batch_3',NULL,2,300,NULL,NULL,NULL,'{}',NULL,'{"id": null, "created_at": null, "date": null, "account": null}',1800000600,NULL,NULL,NULL,NULL,0,NULL,1800000600,1800000600,NULL,1800000600,NULL,NULL,'{"rows": ["completed"], "events": {}}',NULL,NULL,NULL,NULL,'completed',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
CREATE TABLE counts (
    lane_id INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'submitted', 'completed', 'failed', 'cancelled')),
    superseded INTEGER NOT NULL,
    n INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (lane_id, status, superseded)
) STRICT, WITHOUT ROWID;
INSERT INTO "counts" VALUES(1,'completed',0,1);
INSERT INTO "counts" VALUES(1,'completed',1,1);
INSERT INTO "counts" VALUES(1,'failed',0,1);
INSERT INTO "counts" VALUES(1,'pending',0,6);
INSERT INTO "counts" VALUES(1,'submitted',0,9);
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
    done_at INTEGER, again INTEGER NOT NULL DEFAULT 0,
    CHECK ((task_id IS NULL) = (seq IS NULL)),
    CHECK ((status = 'pending') = (done_at IS NULL))
) STRICT;
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
CREATE TABLE keys (
    workload_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (workload_id, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "keys" VALUES(1,'0',1,X'1B42AAA32CAF72B72D434BD130DFE4EB');
INSERT INTO "keys" VALUES(1,'1',2,X'AE7C629631D38B3CA08AA77AEA658BEA');
INSERT INTO "keys" VALUES(1,'100',7,X'6469676573742D313030');
INSERT INTO "keys" VALUES(1,'101',8,X'6469676573742D313031');
INSERT INTO "keys" VALUES(1,'102',9,X'6469676573742D313032');
INSERT INTO "keys" VALUES(1,'103',10,X'6469676573742D313033');
INSERT INTO "keys" VALUES(1,'104',11,X'6469676573742D313034');
INSERT INTO "keys" VALUES(1,'105',12,X'6469676573742D313035');
INSERT INTO "keys" VALUES(1,'106',13,X'6469676573742D313036');
INSERT INTO "keys" VALUES(1,'107',14,X'6469676573742D313037');
INSERT INTO "keys" VALUES(1,'108',15,X'6469676573742D313038');
INSERT INTO "keys" VALUES(1,'109',16,X'6469676573742D313039');
INSERT INTO "keys" VALUES(1,'110',17,X'6469676573742D313130');
INSERT INTO "keys" VALUES(1,'111',18,X'6469676573742D313131');
INSERT INTO "keys" VALUES(1,'2',6,X'41575F8107F294BEE562A0E78F6952CC');
INSERT INTO "keys" VALUES(1,'3',4,X'C3B6E85357F017B9703DCE93F8F8FCDE');
INSERT INTO "keys" VALUES(1,'4',5,X'A65BF9FB9DADD435476374D98B44F1D8');
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    workload_id INTEGER NOT NULL REFERENCES workloads (id),
    dialect TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    UNIQUE (workload_id, dialect, endpoint, model)
) STRICT;
INSERT INTO "lanes" VALUES(1,1,'','','');
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('oldest_version','4');
INSERT INTO "meta" VALUES('state_id','7dec9d25a5863144');
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
    PRIMARY KEY (account, model, unit)
) STRICT, WITHOUT ROWID;
CREATE TABLE receivers (
    target TEXT PRIMARY KEY,
    paused_until INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    why TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    task_id INTEGER PRIMARY KEY,
    enqueued_at INTEGER NOT NULL,
    key TEXT NOT NULL,
    line BLOB NOT NULL
) STRICT;
INSERT INTO "records" VALUES(1,1800000000,'0',X'7B226964223A20302C202274657874223A20227265636F7264206E756D6265722030227D');
INSERT INTO "records" VALUES(2,1800000000,'1',X'7B226964223A20312C202274657874223A20227265636F7264206E756D6265722031227D');
INSERT INTO "records" VALUES(3,1800000000,'2',X'7B226964223A20322C202274657874223A20227265636F7264206E756D6265722032227D');
INSERT INTO "records" VALUES(4,1800000000,'3',X'7B226964223A20332C202274657874223A20227265636F7264206E756D6265722033227D');
INSERT INTO "records" VALUES(5,1800000000,'4',X'7B226964223A20342C202274657874223A20227265636F7264206E756D6265722034227D');
INSERT INTO "records" VALUES(6,1800000000,'2',X'7B226964223A20322C202274657874223A20227265636F7264206E756D62657220322C20616761696E227D');
INSERT INTO "records" VALUES(7,1800000600,'100',X'7B226964223A203130302C202274657874223A20227265636F7264206E756D62657220313030227D');
INSERT INTO "records" VALUES(8,1800000600,'101',X'7B226964223A203130312C202274657874223A20227265636F7264206E756D62657220313031227D');
INSERT INTO "records" VALUES(9,1800000600,'102',X'7B226964223A203130322C202274657874223A20227265636F7264206E756D62657220313032227D');
INSERT INTO "records" VALUES(10,1800000600,'103',X'7B226964223A203130332C202274657874223A20227265636F7264206E756D62657220313033227D');
INSERT INTO "records" VALUES(11,1800000600,'104',X'7B226964223A203130342C202274657874223A20227265636F7264206E756D62657220313034227D');
INSERT INTO "records" VALUES(12,1800000600,'105',X'7B226964223A203130352C202274657874223A20227265636F7264206E756D62657220313035227D');
INSERT INTO "records" VALUES(13,1800000600,'106',X'7B226964223A203130362C202274657874223A20227265636F7264206E756D62657220313036227D');
INSERT INTO "records" VALUES(14,1800000600,'107',X'7B226964223A203130372C202274657874223A20227265636F7264206E756D62657220313037227D');
INSERT INTO "records" VALUES(15,1800000600,'108',X'7B226964223A203130382C202274657874223A20227265636F7264206E756D62657220313038227D');
INSERT INTO "records" VALUES(16,1800000600,'109',X'7B226964223A203130392C202274657874223A20227265636F7264206E756D62657220313039227D');
INSERT INTO "records" VALUES(17,1800000600,'110',X'7B226964223A203131302C202274657874223A20227265636F7264206E756D62657220313130227D');
INSERT INTO "records" VALUES(18,1800000600,'111',X'7B226964223A203131312C202274657874223A20227265636F7264206E756D62657220313131227D');
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
CREATE TABLE runs (
    stage TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    ended_at INTEGER,
    ok_at INTEGER,
    exit_code INTEGER,
    message TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE sightings (
    provider TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    batch_id INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('copy', 'possible', 'other')),
    PRIMARY KEY (provider, remote_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE specs (
    revision TEXT PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "specs" VALUES('5b1b64860314','{"dialect":"openai","endpoint":"/v1/chat/completions","model":"gpt-4.1-mini","prompt":"Repeat: {{ text }}"}');
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
INSERT INTO "spending" VALUES(1799971200,1,'main','gpt-4.1-mini',8,6,24,4,0,36,33000000,66000000,3);
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
    refused_after INTEGER NOT NULL DEFAULT 0, canary TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (workload, revision)
) STRICT, WITHOUT ROWID;
CREATE TABLE strays (
    provider TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    batch_id INTEGER NOT NULL,
    found_at INTEGER NOT NULL,
    spooled TEXT,
    counted_at INTEGER,
    PRIMARY KEY (provider, remote_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE suspects (
    task_id INTEGER PRIMARY KEY,
    lane_id INTEGER NOT NULL,
    batch_id INTEGER NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('among', 'alone', 'named')),
    since INTEGER NOT NULL,
    code TEXT,
    said TEXT
) STRICT;
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane_id INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'submitted', 'completed', 'failed', 'cancelled')),
    batch_id INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    superseded_by INTEGER, retry_of INTEGER,
    CHECK ((status = 'submitted') = (batch_id IS NOT NULL))
) STRICT;
INSERT INTO "tasks" VALUES(1,1,'completed',NULL,1,0,NULL,NULL);
INSERT INTO "tasks" VALUES(2,1,'failed',NULL,1,0,NULL,NULL);
INSERT INTO "tasks" VALUES(3,1,'completed',NULL,1,0,6,NULL);
INSERT INTO "tasks" VALUES(4,1,'submitted',2,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(5,1,'submitted',3,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(6,1,'submitted',3,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(7,1,'submitted',4,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(8,1,'submitted',4,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(9,1,'submitted',5,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(10,1,'submitted',5,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(11,1,'submitted',7,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(12,1,'submitted',7,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(13,1,'pending',NULL,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(14,1,'pending',NULL,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(15,1,'pending',NULL,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(16,1,'pending',NULL,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(17,1,'pending',NULL,0,0,NULL,NULL);
INSERT INTO "tasks" VALUES(18,1,'pending',NULL,0,0,NULL,NULL);
CREATE TABLE totals (
    lane_id INTEGER PRIMARY KEY,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    list_cost INTEGER NOT NULL,
    unpriced INTEGER NOT NULL
) STRICT;
INSERT INTO "totals" VALUES(1,24,4,36,33000000,66000000,3);
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
INSERT INTO "transitions" VALUES(1,1800000000,'task',1,NULL,NULL,'pending',3,'enqueued');
INSERT INTO "transitions" VALUES(2,1800000000,'batch',NULL,1,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(3,1800000000,'task',1,1,'pending','submitted',3,'claimed');
INSERT INTO "transitions" VALUES(4,1800000000,'batch',NULL,1,'processing','uploaded',1,'request file uploaded');
INSERT INTO "transitions" VALUES(5,1800000000,'batch',NULL,1,'uploaded','submitting',1,'create is being sent');
INSERT INTO "transitions" VALUES(6,1800000000,'batch',NULL,1,'submitting','submitted',1,'created');
INSERT INTO "transitions" VALUES(7,1800000000,'batch',NULL,1,'submitted','completed',1,'the provider says completed');
INSERT INTO "transitions" VALUES(8,1800000000,'task',1,1,'submitted','completed',2,'its result came');
INSERT INTO "transitions" VALUES(9,1800000000,'task',1,1,'submitted','failed',1,'its result came');
INSERT INTO "transitions" VALUES(10,1800000000,'batch',NULL,1,'completed','reconciled',1,'every task is accounted for');
INSERT INTO "transitions" VALUES(11,1800000000,'task',1,NULL,NULL,'pending',1,'enqueued');
INSERT INTO "transitions" VALUES(12,1800000000,'batch',NULL,2,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(13,1800000000,'task',1,2,'pending','submitted',1,'claimed');
INSERT INTO "transitions" VALUES(14,1800000000,'batch',NULL,2,'processing','uploaded',1,'request file uploaded');
INSERT INTO "transitions" VALUES(15,1800000000,'batch',NULL,2,'uploaded','submitting',1,'create is being sent');
INSERT INTO "transitions" VALUES(16,1800000000,'batch',NULL,2,'submitting','submitted',1,'created');
INSERT INTO "transitions" VALUES(17,1800000000,'task',1,NULL,NULL,'pending',1,'enqueued');
INSERT INTO "transitions" VALUES(18,1800000000,'task',1,NULL,NULL,'pending',1,'enqueued');
INSERT INTO "transitions" VALUES(19,1800000000,'task',1,NULL,'completed','completed',1,'superseded by task 6');
INSERT INTO "transitions" VALUES(20,1800000600,'task',1,NULL,NULL,'pending',12,'enqueued');
INSERT INTO "transitions" VALUES(21,1800000600,'batch',NULL,3,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(22,1800000600,'task',1,3,'pending','submitted',2,'claimed');
INSERT INTO "transitions" VALUES(23,1800000600,'batch',NULL,4,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(24,1800000600,'task',1,4,'pending','submitted',2,'claimed');
INSERT INTO "transitions" VALUES(25,1800000600,'batch',NULL,4,'processing','uploaded',1,'dumped');
INSERT INTO "transitions" VALUES(26,1800000600,'batch',NULL,5,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(27,1800000600,'task',1,5,'pending','submitted',2,'claimed');
INSERT INTO "transitions" VALUES(28,1800000600,'batch',NULL,5,'processing','uploaded',1,'dumped');
INSERT INTO "transitions" VALUES(29,1800000600,'batch',NULL,5,'uploaded','submitting',1,'dumped');
INSERT INTO "transitions" VALUES(30,1800000600,'batch',NULL,6,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(31,1800000600,'task',1,6,'pending','submitted',2,'claimed');
INSERT INTO "transitions" VALUES(32,1800000600,'task',1,6,'submitted','pending',2,'its batch was refused');
INSERT INTO "transitions" VALUES(33,1800000600,'batch',NULL,6,'processing','failed',1,'dumped');
INSERT INTO "transitions" VALUES(34,1800000600,'batch',NULL,7,NULL,'processing',1,'claimed');
INSERT INTO "transitions" VALUES(35,1800000600,'task',1,7,'pending','submitted',2,'claimed');
INSERT INTO "transitions" VALUES(36,1800000600,'batch',NULL,7,'processing','submitting',1,'dumped');
INSERT INTO "transitions" VALUES(37,1800000600,'batch',NULL,7,'submitting','submitted',1,'dumped');
INSERT INTO "transitions" VALUES(38,1800000600,'batch',NULL,7,'submitted','completed',1,'dumped');
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
CREATE TABLE troubles (
    stage TEXT NOT NULL,
    scope TEXT NOT NULL,
    since INTEGER NOT NULL,
    said_at INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (stage, scope)
) STRICT, WITHOUT ROWID;
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
CREATE TABLE workloads (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO "workloads" VALUES(1,'echo');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX tasks_pending ON tasks (lane_id, not_before, id) WHERE status = 'pending';
CREATE INDEX tasks_batch ON tasks (batch_id, id) WHERE batch_id IS NOT NULL;
CREATE INDEX batches_open ON batches (status) WHERE final_at IS NULL;
CREATE INDEX batches_unclean ON batches (final_at) WHERE final_at IS NOT NULL AND cleaned_at IS NULL;
CREATE UNIQUE INDEX batches_remote ON batches (provider, address, remote_id) WHERE remote_id IS NOT NULL;
CREATE INDEX transitions_batch ON transitions (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX deliveries_due ON deliveries (workload_id, kind, target, id) WHERE status = 'pending';
CREATE INDEX deliveries_task ON deliveries (task_id, kind, target, id) WHERE status = 'pending' AND task_id IS NOT NULL;
CREATE INDEX deliveries_batch ON deliveries (batch_id) WHERE status = 'pending' AND kind = 'row';
CREATE INDEX deliveries_dead ON deliveries (workload_id, kind, target) WHERE status = 'dead';
CREATE INDEX batches_remote_id ON batches (remote_id) WHERE remote_id IS NOT NULL;
CREATE INDEX strays_remote_id ON strays (remote_id);
CREATE INDEX answers_finished ON answers (finished_at);
CREATE INDEX batches_sent ON batches (provider, created_at) WHERE marker IS NOT NULL;
CREATE INDEX batches_cancelled ON batches (id) WHERE cancelled > 0;
CREATE INDEX answers_cancelled ON answers (batch_id) WHERE status = 'cancelled';
CREATE INDEX actions_at ON actions (at);
CREATE INDEX past_runs_started ON past_runs (started_at);
CREATE INDEX transitions_at ON transitions (at);
CREATE INDEX tasks_retry ON tasks (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX tasks_again ON tasks (lane_id) WHERE retry_of IS NOT NULL AND status = 'pending';
CREATE INDEX tasks_superseded ON tasks (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX deliveries_over ON deliveries (task_id) WHERE status <> 'pending';
CREATE INDEX answers_unanswered ON answers (status) WHERE status <> 'completed';
CREATE INDEX answers_errors ON answers (error_kind, error_code, task_id, status) WHERE status = 'failed';
CREATE INDEX answers_batch ON answers (batch_id);
CREATE INDEX attempts_batch ON attempts (batch_id);
CREATE INDEX actions_batch ON actions (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX suspects_queue ON suspects (lane_id, how, since, task_id);
CREATE INDEX batches_validated ON batches (revision, workload, validated_at) WHERE validated_at IS NOT NULL;
CREATE INDEX batches_revision ON batches (revision, workload, final_at);
CREATE INDEX batches_answered ON batches (revision, workload) WHERE answered > 0;
CREATE INDEX attempts_refused ON attempts (batch_id) WHERE outcome IN ('refused', 'render');
CREATE INDEX attempts_excused ON attempts (batch_id) WHERE excused IS NOT NULL;
CREATE INDEX tasks_tried ON tasks (lane_id, attempts) WHERE status = 'pending' AND attempts > 0;
CREATE INDEX batches_sent_at ON batches (sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX batches_lane ON batches (lane_id, sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX strays_batch ON strays (batch_id);
CREATE INDEX sightings_batch ON sightings (batch_id);
CREATE INDEX batches_canary ON batches (revision, workload) WHERE canary = 1;
CREATE INDEX attempts_unpriced ON attempts (batch_id) WHERE cost IS NULL AND outcome <> 'render';
CREATE INDEX trials_unpriced ON trials (at) WHERE cost IS NULL;
CREATE TRIGGER attempts_entered AFTER INSERT ON attempts WHEN new.outcome <> 'render' BEGIN
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('tasks',18);
INSERT INTO "sqlite_sequence" VALUES('transitions',38);
INSERT INTO "sqlite_sequence" VALUES('batches',7);
INSERT INTO "sqlite_sequence" VALUES('answers',3);
COMMIT;
PRAGMA user_version = 6;
