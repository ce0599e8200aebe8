-- Numbers that a round's strategy tells of itself, such as the privacy that was spent.

alter table rounds add column strategy_metrics text not null default '{}';
