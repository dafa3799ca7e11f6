-- The books of what was applied, this file included.
create schema if not exists trio_services;

create table trio_services.migrations (
    source text not null,      -- whose: 'trio_services' or 'application'
    number integer not null,
    name text not null,
    checksum text not null,    -- SHA-256 of the file, with newlines as \n
    applied_at timestamptz not null default now(),
    primary key (source, number)
);
