//! Layers that a test may switch off, to show that the layer is what stops an attack.
//!
//! sandboxd honours these only when it was started with `--ablation-allowed`, which no setting and no command of the
//! CLI can ask for.

macro_rules! layers {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Layer { $($variant),+ }

        impl Layer {
            pub const ALL: &[Layer] = &[$(Layer::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Layer::$variant => $name),+ }
            }
        }
    };
}

layers! {
    Cgroup = "cgroup",
    PidNs = "pid_ns",
    MountNs = "mount_ns",
    NetNs = "net_ns",
    IpcNs = "ipc_ns",
    UtsNs = "uts_ns",
    CgroupNs = "cgroup_ns",
    TimeNs = "time_ns",
    UserNs = "user_ns",
    NestedNs = "nested_ns",
    ProcOptions = "proc_options",
    Nosuid = "nosuid",
    Nodev = "nodev",
    TmpfsSize = "tmpfs_size",
    Groups = "groups",
    Caps = "caps",
    NoNewPrivs = "no_new_privs",
    Dumpable = "dumpable",
    Rlimits = "rlimits",
    CloseFds = "close_fds",
    Seccomp = "seccomp",
}

/// A set of layers that are off; empty outside of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ablation(u32);

impl Ablation {
    pub const NONE: Ablation = Ablation(0);

    #[must_use]
    pub const fn with(self, layer: Layer) -> Self {
        Ablation(self.0 | 1 << layer as u8)
    }

    /// Whether the layer is on, as it always is in service.
    pub const fn keeps(self, layer: Layer) -> bool {
        self.0 & 1 << layer as u8 == 0
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// # Errors
    /// The name that is no layer's.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        names.into_iter().try_fold(Self::NONE, |set, name| {
            let layer = Layer::ALL.iter().find(|layer| layer.name() == name);
            layer.map(|layer| set.with(*layer)).ok_or_else(|| format!("no layer is called {name:?}"))
        })
    }
}
