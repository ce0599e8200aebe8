-- How a round's metrics were averaged: clients, the source of their weights, and numbers that were not finite.

alter table rounds add column averages text not null default '{}';
