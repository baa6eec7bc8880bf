//! The files of the presets.

use grapnel_crds::presets::NAMES;

macro_rules! embed {
    ($($name:literal,)*) => {
        /// Each provider with the text of its file. A test compares the names with the folder.
        pub(super) static PRESETS: [(&str, &str); NAMES.len()] =
            [$(($name, include_str!(concat!("../../presets/", $name, ".yaml")))),*];
    };
}
grapnel_crds::with_presets!(embed);
