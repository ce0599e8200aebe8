-- What each combiner of a tree did in a round; sessions without a tree have no such rows.

create table combiners (
    session_id text not null,
    round_number bigint not null,
    path text not null,
    status text not null,
    reason text,
    rounds bigint not null,
    num_asked bigint not null,
    num_ok bigint not null,
    num_examples double precision not null,
    bytes_down bigint not null,
    bytes_up bigint not null,
    virtual_s double precision,
    metrics text not null,
    primary key (session_id, round_number, path),
    foreign key (session_id, round_number) references rounds (session_id, round_number)
);
