//! A system as a provider deploys it: five programs, each from a settings file of its own.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::identity::{Authority, IdentityFiles, Role};
use posthouse::health::{Condition, ask};
use posthouse::nodes::Node;
use posthouse::ports::Port;
use tempfile::TempDir;

use crate::eventually;
use crate::ports::PortBlock;
use crate::programs::program;
use crate::system::Running;

/// Settings files and certificates, and the ports they name. Nothing runs by itself.
pub struct Provider {
    ports: PortBlock,
    folder: TempDir,
}

impl Provider {
    /// Writes everything.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn new() -> Self {
        let provider = Self {
            ports: PortBlock::take(),
            folder: tempfile::tempdir().unwrap(),
        };
        let authority = Authority::create(provider.path()).unwrap();
        let names = ["localhost", "127.0.0.1"];
        authority
            .issue_public(
                &names,
                &provider.file("public.pem"),
                &provider.file("public.key"),
            )
            .unwrap();
        for node in Node::ALL {
            authority
                .issue(
                    node.tier().role(),
                    node.name(),
                    &provider.identity(node.name()),
                )
                .unwrap();
            fs::write(provider.settings(node), provider.text(node)).unwrap();
        }
        authority
            .issue(Role::Operator, "operator", &provider.identity("operator"))
            .unwrap();
        let operator = format!(
            "directory = \"{}\"\n{}",
            provider.at(Port::Directory),
            provider.identity_section("operator")
        );
        fs::write(provider.file("operator.toml"), operator).unwrap();
        provider
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The settings file of one node.
    #[must_use]
    pub fn settings(&self, node: Node) -> PathBuf {
        self.file(&format!("{node}.toml"))
    }

    /// The certificate that users check ours against.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// Where something listens.
    #[must_use]
    pub fn at(&self, port: Port) -> SocketAddr {
        self.ports.of(port)
    }

    fn identity(&self, node: &str) -> IdentityFiles {
        IdentityFiles {
            ca: self.ca(),
            certificate: self.file(&format!("{node}.pem")),
            key: self.file(&format!("{node}.key")),
        }
    }

    fn identity_section(&self, node: &str) -> String {
        let files = self.identity(node);
        format!(
            "\n[identity]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            files.ca, files.certificate, files.key
        )
    }

    fn text(&self, node: Node) -> String {
        let at = |port| format!("{:?}", self.at(port).to_string());
        let tls = format!(
            "\n[tls]\ncertificate = {:?}\nkey = {:?}\n",
            self.file("public.pem"),
            self.file("public.key")
        );
        let own = match node {
            Node::Directory => format!(
                "listen = {}\ndata = {:?}\n",
                at(Port::Directory),
                self.file("directory-data")
            ),
            Node::Mx => format!(
                "listen = {}\ndirectory = {}\n{tls}",
                at(Port::Smtp),
                at(Port::Directory)
            ),
            Node::Proxy => format!(
                "pop3 = {}\npop3s = {}\ndirectory = {}\n{tls}",
                at(Port::Pop3),
                at(Port::Pop3s),
                at(Port::Directory)
            ),
            Node::Backend(which) => format!(
                "name = \"{node}\"\ndata = {:?}\nlink_listen = {}\ndirectory = {}\n[listen]\nlmtp = {}\npop3 = {}\n{tls}",
                self.file(&format!("{node}-data")),
                at(Port::Link(which)),
                at(Port::Directory),
                at(Port::Lmtp(which)),
                at(Port::BackendPop3(which)),
            ),
        };
        format!(
            "metrics_listen = {}\n{own}{}",
            at(Port::Metrics(node)),
            self.identity_section(node.name())
        )
    }

    /// Lets the directory take proofs (SCRAM) and an issuer's tokens, from the next start on.
    ///
    /// # Panics
    /// When its settings cannot be written.
    pub fn take_proofs_and_tokens(&self, key_set: &str) {
        let (settings, keys) = (self.settings(Node::Directory), self.file("issuer.json"));
        fs::write(&keys, key_set).unwrap();
        let text = fs::read_to_string(&settings).unwrap();
        let oauth = format!("keys = {keys:?}\nissuer = \"https://id.test\"\naudience = \"mail\"\n");
        let text = format!("scram_iterations = 4096\n{text}\n[oauth]\n{oauth}");
        fs::write(&settings, text).unwrap();
    }

    /// Lets users in who show the proxy a certificate of this authority (PEM), from the next start on.
    ///
    /// # Panics
    /// When settings cannot be written.
    pub fn take_certificates(&self, authority: &str) {
        let ca = self.file("users.pem");
        fs::write(&ca, authority).unwrap();
        let (directory, proxy) = (self.settings(Node::Directory), self.settings(Node::Proxy));
        let text = fs::read_to_string(&directory).unwrap();
        let external = format!("ca = {ca:?}\nproxies = [\"{}\"]\n", Node::Proxy.name());
        fs::write(&directory, format!("{text}\n[external]\n{external}")).unwrap();
        let text = fs::read_to_string(&proxy).unwrap();
        fs::write(&proxy, format!("users_ca = {ca:?}\n{text}")).unwrap();
    }

    /// Starts what one user needs, and adds them.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_for(&self, user: &str, password: &str) -> Vec<Running> {
        let nodes = [Node::Directory, Node::Backend(0), Node::Proxy];
        let running = nodes.map(|node| self.start(node)).into();
        for node in nodes {
            eventually("each is ready", || {
                (self.condition(node) == Condition::Ready).then_some(())
            });
        }
        let domain = user.rsplit('@').next().unwrap_or_default();
        _ = self.operator(&["domain", "add", domain], "");
        let add = ["account", "add", user, "--backend", "b1"];
        _ = self.operator(&add, &format!("{password}\n"));
        running
    }

    /// Starts one program from its settings file.
    #[must_use]
    pub fn start(&self, node: Node) -> Running {
        let arguments = ["--config".into(), self.settings(node).into_os_string()];
        Running::start(
            &node.tier().to_string(),
            arguments,
            self.path(),
            node.name(),
        )
    }

    /// What one of them says about itself.
    ///
    /// # Panics
    /// Never in practice: a runtime can be made.
    #[must_use]
    pub fn condition(&self, node: Node) -> Condition {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(ask(self.at(Port::Metrics(node))))
    }

    /// Runs an operator's verb with its settings file; gives what it printed.
    ///
    /// # Panics
    /// When the verb fails.
    #[must_use]
    pub fn operator(&self, verb: &[&str], input: &str) -> String {
        self.operates(verb, input).0
    }

    /// The same of a verb that reads nothing; gives what it warned of, too.
    ///
    /// # Panics
    /// When the verb fails.
    #[must_use]
    pub fn operator_warned(&self, verb: &[&str]) -> (String, String) {
        self.operates(verb, "")
    }

    fn operates(&self, verb: &[&str], input: &str) -> (String, String) {
        let mut child = Command::new(program("posthouse"))
            .args(verb)
            .arg("--config")
            .arg(self.file("operator.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let [said, warned] =
            [output.stdout, output.stderr].map(|octets| String::from_utf8(octets).unwrap());
        assert!(output.status.success(), "{verb:?}: {warned}");
        (said, warned)
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self::new()
    }
}
