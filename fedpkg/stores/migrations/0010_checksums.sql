-- Checksums of recorded replies and of the states that tasks left, so that a resumed round can tell whether they survived.

alter table tasks add column state_checksum text not null default '';
alter table updates add column checksum text not null default '';
