-- What samplers use: how often each client was asked, and what it last reported. It grows with the clients, not the rounds.

create table client_history (
    session_id text not null references sessions (session_id),
    client_id text not null,
    times_asked bigint not null,
    last_asked bigint,
    times_counted bigint not null,
    last_counted bigint,
    train_metrics text not null,
    validation_metrics text not null,
    primary key (session_id, client_id)
);
