-- The number of the rules of computation that a session uses (fedpkg/rules.py). Earlier sessions have rules 1.

alter table sessions add column rules bigint not null default 1;
