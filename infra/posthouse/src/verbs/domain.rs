//! `posthouse domain …`

use directory_api::wire::Domain;
use directory_api::{DirectoryClient, DomainName};

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
    Add { name: DomainName },
    /// Stop taking mail for a domain that has no address left
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
            Self::Add { name } => {
                let changed = directory
                    .put_domain(&name)
                    .await
                    .map_err(|error| told(NOUN, &name, error))?;
                output.one(Some("added"), &changed.now);
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

impl Row for Domain {
    const HEADINGS: &'static [&'static str] = &["DOMAIN"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string()]
    }
}
