-- Which outstanding requests each wait of a round got, in order of arrival, so that a resumed round gets the same ones.

alter table rounds add column arrivals text not null default '[]';
