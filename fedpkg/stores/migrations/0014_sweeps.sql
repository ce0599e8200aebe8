-- Sweeps: sessions that differ in some keys of their configuration. A point is one of them, before it runs too.

create table sweeps (
    name text primary key,
    kind text not null,
    source text not null,
    overrides text not null,
    options text not null,
    created_at double precision not null,
    updated_at double precision not null,
    status text not null,
    error text,
    stop_requested boolean not null,
    process text not null
);

create table sweep_points (
    sweep text not null references sweeps (name),
    number bigint not null,
    choices text not null,
    config text,
    digest text not null,
    baseline text not null,
    status text not null,
    session_id text references sessions (session_id),
    value double precision,
    error text,
    primary key (sweep, number)
);
