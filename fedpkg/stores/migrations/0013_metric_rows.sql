-- How each metric of a round is distributed over the clients (rounds of before have no such rows), and what a client's
-- validation measured.

create table metric_rows (
    session_id text not null,
    round_number bigint not null,
    phase text not null,
    metric text not null,
    num_clients bigint not null,
    weighted_mean double precision,
    mean double precision,
    std double precision,
    min double precision,
    max double precision,
    deciles text not null,
    worst_tenth double precision,
    best_tenth double precision,
    primary key (session_id, round_number, phase, metric),
    foreign key (session_id, round_number) references rounds (session_id, round_number)
);

alter table validations add column phase text not null default 'validate';
