-- What a session's package unpacked to, and by whose signatures it was allowed.

alter table sessions add column package_contents text not null default '';
alter table sessions add column signatures text not null default '[]';
