-- Which of a model's tensors are buffers: a model file does not tell them from parameters.

alter table models add column buffers text not null default '[]';
