-- Folders of tasks and files of replies are named from the home, so that a home can be moved. What stands behind the
-- last slash of a path is what is left of it without rtrim(path, <all its characters but the slash>).

update tasks set folder = 'sessions/' || session_id || '/round-' || round_number || '/' || client_id || '/'
    || substr(folder, length(rtrim(folder, replace(folder, '/', ''))) + 1)
    where folder like '%/sessions/' || session_id || '/round-' || round_number || '/' || client_id || '/%';

update updates set path = (select folder from tasks where tasks.task_id = updates.task_id) || '.reply/'
    || substr(path, length(rtrim(path, replace(path, '/', ''))) + 1)
    where path like '%/sessions/%.reply/%'
    and exists (select 1 from tasks where tasks.task_id = updates.task_id and folder like 'sessions/%');
