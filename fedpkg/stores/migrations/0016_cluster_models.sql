-- Several global models in one session: one for each cluster of clients, beside that of the session (`cluster` is empty).
-- `until_round` is the round from which the row is no longer its cluster's model, and `parents` the models that it comes
-- from. The clients' clusters have a row for each change; an empty path is none. Aggregates of metrics know their cluster.

alter table models add column cluster text not null default '';
alter table models add column parents text not null default '[]';
alter table models add column until_round bigint;
alter table models add column num_examples double precision not null default 0;
create index models_by_cluster on models (session_id, cluster, round_number);

create table cluster_clients (
    session_id text not null,
    client_id text not null,
    round_number bigint not null,
    path text not null,
    primary key (session_id, client_id, round_number),
    foreign key (session_id, client_id) references clients (session_id, client_id)
);

create table metric_rows_by_cluster (
    session_id text not null,
    round_number bigint not null,
    phase text not null,
    cluster text not null,
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
    primary key (session_id, round_number, phase, cluster, metric),
    foreign key (session_id, round_number) references rounds (session_id, round_number)
);
insert into metric_rows_by_cluster (session_id, round_number, phase, cluster, metric, num_clients, weighted_mean, mean,
    std, min, max, deciles, worst_tenth, best_tenth)
    select session_id, round_number, phase, '', metric, num_clients, weighted_mean, mean, std, min, max, deciles,
        worst_tenth, best_tenth from metric_rows;
drop table metric_rows;
alter table metric_rows_by_cluster rename to metric_rows;
