-- Models whose files were removed by a rule (keep.models, home prune) stay in the trail; `pruned` names the rule.

alter table models add column pruned text;
