-- Everything in lower case without a sign of where a word ends, behind a prefix.
create table tblUsers (
    UserID int primary key,
    EmailAddress varchar(200),
    PasswordHash varchar(200),
    TwoFactorEnabled boolean,
    DefaultCompanyID int
);
create table tblCompanies (
    CompanyID int primary key,
    Name text
);
create table tblUserCompanies (
    UserID int not null references tblUsers,
    CompanyID int not null references tblCompanies,
    RoleName varchar(20) not null check (RoleName in ('CompanyAdmin','User')),
    IsActive boolean default true,
    primary key (UserID, CompanyID)
);
create table tblApiKeys (
    ApiKeyID int primary key,
    CompanyID int references tblCompanies,
    ApiKey varchar,
    IsRevoked boolean
);
create table tblWorkflows (
    WorkflowID int primary key,
    CompanyID int references tblCompanies,
    OwnerUserID int references tblUsers,
    IsArchived boolean
);
create table tblWorkflowSteps (
    StepID int primary key,
    WorkflowID int references tblWorkflows on delete cascade
);
create table tblWorkflowLogs (
    ID int primary key,
    WorkflowID int references tblWorkflows on delete cascade
);
