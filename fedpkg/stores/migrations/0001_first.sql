-- The first schema. Portable SQL: text ids, JSON as text, times in seconds since the epoch.

create table schema_version (
    only_row bigint primary key check (only_row = 1),
    version bigint not null
);

create table packages (
    digest text primary key,
    name text not null,
    size_bytes bigint not null,
    entry_points text not null,
    created_at double precision not null
);

create table sessions (
    session_id text primary key,
    name text not null,
    status text not null,
    config text not null,
    package_digest text not null references packages (digest),
    seed bigint not null,
    num_rounds bigint not null,
    created_at double precision not null,
    updated_at double precision not null,
    error text,
    stop_requested boolean not null
);

create table clients (
    session_id text not null references sessions (session_id),
    client_id text not null,
    position bigint not null,
    data_path text,
    num_examples bigint,
    last_num_examples double precision,
    state_version text,
    primary key (session_id, client_id)
);

create table models (
    model_id text primary key,
    digest text not null,
    parent_id text references models (model_id),
    session_id text not null references sessions (session_id),
    round_number bigint not null,
    suffix text not null,
    keys text not null,
    size_bytes bigint not null,
    contributors text not null,
    created_at double precision not null
);
create index models_by_digest on models (digest);
create index models_by_round on models (session_id, round_number);

create table rounds (
    session_id text not null references sessions (session_id),
    round_number bigint not null,
    status text not null,
    cohort text not null,
    target bigint not null,
    counted text,
    started_at double precision not null,
    finished_at double precision,
    wall_s double precision,
    num_ok bigint not null,
    num_failed bigint not null,
    num_examples double precision not null,
    metrics text not null,
    train_metrics text not null,
    model_id text references models (model_id),
    phases text not null,
    error text,
    primary key (session_id, round_number)
);

-- A task has no foreign key to its round or client: the build entry point runs before there are any.
create table tasks (
    task_id text primary key,
    session_id text not null references sessions (session_id),
    round_number bigint not null,
    client_id text not null,
    position bigint not null,
    entry_point text not null,
    attempt bigint not null,
    status text not null,
    failure text,
    message text,
    exit_code bigint,
    signal bigint,
    started_at double precision not null,
    wall_s double precision not null,
    folder text,
    command text,
    log_tail text,
    state_version text,
    phases text not null
);
create index tasks_by_round on tasks (session_id, round_number);

create table updates (
    task_id text primary key references tasks (task_id),
    path text not null,
    size_bytes bigint not null,
    num_examples double precision not null,
    metadata text not null
);

create table validations (
    task_id text primary key references tasks (task_id),
    session_id text not null references sessions (session_id),
    round_number bigint not null,
    model_id text not null references models (model_id),
    client_id text not null,
    metrics text,
    weight double precision not null,
    weight_source text not null
);
create index validations_by_round on validations (session_id, round_number);

create table strategy_states (
    session_id text not null references sessions (session_id),
    step bigint not null,
    state text not null,
    primary key (session_id, step)
);
