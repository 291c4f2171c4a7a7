//! `posthouse domain …`

use directory_api::wire::{Domain, code};
use directory_api::{DirectoryClient, DirectoryError, DomainName};

use super::{Output, Row, VerbError, told};

const NOUN: &str = "domain";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// All domains whose mail is ours
    List {
        /// Only names that contain this
        #[arg(long)]
        filter: Option<String>,
    },
    /// One domain
    Show { name: DomainName },
    /// Take mail for a domain
    Add {
        name: DomainName,
        /// As another name of this domain: mail and logins for `x@NAME` are those of `x@DOMAIN`
        #[arg(long, value_name = "DOMAIN")]
        alias_of: Option<DomainName>,
    },
    /// Make a domain that has no addresses an alias of another, or an alias a domain of its own
    Set {
        name: DomainName,
        /// Another name of this domain from now on
        #[arg(long, value_name = "DOMAIN", required_unless_present = "own")]
        alias_of: Option<DomainName>,
        /// A domain with addresses of its own from now on
        #[arg(long, conflicts_with = "alias_of")]
        own: bool,
    },
    /// Stop taking mail for a domain that has no address and no alias left
    Remove { name: DomainName },
}

impl super::Verb for Verb {
    async fn perform(self, directory: &DirectoryClient, output: &Output) -> Result<(), VerbError> {
        match self {
            Self::List { filter } => {
                return output
                    .list(filter, async |query| directory.domains(&query).await)
                    .await;
            }
            Self::Show { name } => {
                let domain = directory
                    .domain(&name)
                    .await
                    .map_err(|error| told(NOUN, &name, error))?;
                output.one(None, &domain);
            }
            Self::Add { name, alias_of } => {
                match directory.domain(&name).await {
                    Err(DirectoryError::Unknown) => {}
                    Ok(there) if there.alias_of == alias_of => {}
                    Ok(_) => {
                        return Err(VerbError::Refused {
                            noun: NOUN,
                            name: name.to_string(),
                            message: "is there and differs; `posthouse domain set` changes it"
                                .to_owned(),
                            code: code::EXISTS.to_owned(),
                        });
                    }
                    Err(error) => return Err(told(NOUN, &name, error)),
                }
                let now = put(directory, &name, alias_of).await?;
                output.one(Some("added"), &now);
            }
            Self::Set {
                name,
                alias_of,
                own: _,
            } => {
                directory
                    .domain(&name)
                    .await
                    .map_err(|error| told(NOUN, &name, error))?;
                let now = put(directory, &name, alias_of).await?;
                output.one(Some("set"), &now);
            }
            Self::Remove { name } => {
                let changed = directory
                    .delete_domain(&name)
                    .await
                    .map_err(|error| told(NOUN, &name, error))?;
                output.one(Some("removed"), &changed.now);
            }
        }
        Ok(())
    }
}

async fn put(
    directory: &DirectoryClient,
    name: &DomainName,
    alias_of: Option<DomainName>,
) -> Result<Domain, VerbError> {
    let changed = match &alias_of {
        Some(of) => directory.put_domain_alias(name, of).await,
        None => directory.put_domain_own(name).await,
    };
    changed
        .map(|changed| changed.now)
        .map_err(|error| told(NOUN, name, error))
}

impl Row for Domain {
    const HEADINGS: &'static [&'static str] = &["DOMAIN", "ALIAS OF"];

    fn cells(&self) -> Vec<String> {
        let of = self.alias_of.as_ref();
        vec![
            self.name.to_string(),
            of.map_or(String::new(), ToString::to_string),
        ]
    }
}
