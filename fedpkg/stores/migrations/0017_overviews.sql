-- What pages about a session look for: its failed tasks, and what one client did.

create index tasks_failed on tasks (session_id, round_number) where status = 'failed';
create index tasks_by_client on tasks (session_id, client_id, round_number);
create index validations_by_client on validations (session_id, client_id, round_number);
