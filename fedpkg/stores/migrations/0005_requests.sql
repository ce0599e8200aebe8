-- A round makes several requests. Each has its own cohort and its own replies that count. Before, a round made one.

create table requests (
    session_id text not null,
    round_number bigint not null,
    request_id text not null,
    number bigint not null,
    entry_point text not null,
    reply_kind text not null,
    client_group text,
    cohort text not null,
    target bigint not null,
    status text not null,
    counted text,
    started_at double precision not null,
    wall_s double precision,
    num_ok bigint not null,
    num_failed bigint not null,
    bytes_down bigint not null,
    bytes_up bigint not null,
    primary key (session_id, round_number, request_id),
    foreign key (session_id, round_number) references rounds (session_id, round_number)
);

alter table tasks add column request_id text;
alter table tasks add column bytes_down bigint not null default 0;
alter table tasks add column bytes_up bigint not null default 0;

update tasks set request_id = 'train-' || round_number where entry_point = 'train';
update tasks set bytes_up = coalesce((select size_bytes from updates where updates.task_id = tasks.task_id), 0);

insert into requests
    select session_id, round_number, 'train-' || round_number, 1, 'train', 'update', null, cohort, target,
        case when status = 'failed' then 'failed' when counted is null then 'asked' else 'answered' end,
        case when status = 'failed' then null else counted end,
        started_at, wall_s, num_ok, num_failed, 0, 0
    from rounds;
