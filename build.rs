//! Embeds the files of the dashboard's page, raw and compressed: `src/dashboard/web/assets.rs` serves them.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;

const FOLDER: &str = "src/dashboard/assets";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={FOLDER}");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join(FOLDER);
    let mut files: Vec<_> = fs::read_dir(&folder).into_iter().flatten().collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let mut code = String::from("static ASSETS: &[Asset] = &[\n");
    for file in files {
        let name =
            file.file_name().into_string().map_err(|_| io::Error::other("a file's name isn't UTF-8"))?;
        let Some(content_type) = content_type(&name) else { continue };
        let raw = fs::read(file.path())?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&raw)?;
        let zipped = Path::new(&out).join(format!("{name}.gz"));
        fs::write(&zipped, encoder.finish()?)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&raw);
        let etag = format!("\"{:016x}\"", hasher.finish());
        writeln!(
            code,
            "    Asset {{ name: {name:?}, content_type: {content_type:?}, etag: {etag:?}, raw: include_bytes!({:?}), \
             gzip: include_bytes!({zipped:?}) }},",
            file.path()
        )
        .map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    fs::write(Path::new(&out).join("dashboard_assets.rs"), code)
}

/// The type of a file that is part of the page; notes for its authors aren't.
fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}
