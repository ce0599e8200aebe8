-- The rules of computation that a session goes on by (fedpkg/rules.py). Sessions of before have rules 1.

alter table sessions add column rules bigint not null default 1;
