-- Models whose files were removed by a rule (keep.models, home prune) stay in the trail, and say by which.

alter table models add column pruned text;
