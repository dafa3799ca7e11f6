-- Durable queues. A job is a row that moves: scheduled → ready → running → gone, or dead. So each
-- table holds what it is about and nothing to skip over; see trio_services/pg/_claims.py.
create sequence trio_services.job_id;

create table trio_services.ready (
    queue text not null,
    rank smallint not null,                     -- minus the priority: the index is in order
    id bigint not null default nextval('trio_services.job_id'),
    attempt smallint not null default 0,        -- how often it was claimed, this claim included
    version integer not null,                   -- of the payload
    payload json not null,
    unique_key text,
    errors json,                                -- the last failures, oldest first
    put_at timestamptz not null default now(),
    primary key (queue, rank, id)
);

create table trio_services.scheduled (
    like trio_services.ready including defaults,
    run_at timestamptz not null,
    primary key (queue, run_at, id)
);

create table trio_services.running (
    like trio_services.ready including defaults,
    lease bigint not null,
    primary key (lease, id)
);

create table trio_services.dead (
    like trio_services.ready including defaults,
    died_at timestamptz not null default now(),
    primary key (queue, id)
);

-- A process at work on a queue. Numbers only rise: that of the lease is the fencing token.
create table trio_services.lease (
    id bigint generated always as identity primary key,
    queue text not null,
    worker text not null,
    began_at timestamptz not null default now(),
    expires_at timestamptz not null
);

-- The keys of jobs of which there may be one at a time.
create table trio_services.unique_job (
    queue text not null,
    key text not null,
    primary key (queue, key)
);

alter table trio_services.ready set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_threshold = 500, autovacuum_vacuum_cost_delay = 0
);
alter table trio_services.running set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_threshold = 500, autovacuum_vacuum_cost_delay = 0
);
alter table trio_services.scheduled set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);
alter table trio_services.unique_job set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);
alter table trio_services.lease set (fillfactor = 50);  -- a renewal stays on its page
