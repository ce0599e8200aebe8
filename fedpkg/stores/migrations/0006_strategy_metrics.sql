-- Numbers that a strategy reports for a round, such as the privacy that was spent.

alter table rounds add column strategy_metrics text not null default '{}';
