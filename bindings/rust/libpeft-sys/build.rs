//! Finds the C library or builds it, with programs that every C toolchain has: pkg-config, cc and ar.
//!
//! 1. `LIBPEFT_DIR`: a folder with the library, in it or in its `lib/`.
//! 2. pkg-config, unless the feature `bundled` is on or another machine is the target (then set `PKG_CONFIG_ALLOW_CROSS`).
//! 3. The C sources: `native/` of this crate, or the repository that it stands in.
//!
//! `LIBPEFT_STATIC`: 1 links the archive, 0 the shared library, in the first two ways; unset, the archive is taken from
//! `LIBPEFT_DIR` where there is one, and pkg-config decides by itself. `CC`, `AR` and `CFLAGS`, each also with `_` and the target's name
//! behind it, serve the third way.
//!
//! Left out: compilers that do not take the arguments of cc.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{exit, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const NAME: &str = "peft";

fn main() {
    for name in ["LIBPEFT_DIR", "LIBPEFT_STATIC", "PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_ALLOW_CROSS"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let wanted = env::var("LIBPEFT_STATIC").ok().map(|v| v != "0");
    if let Some(dir) = env::var_os("LIBPEFT_DIR") {
        link_folder(Path::new(&dir), wanted);
    } else if env::var_os("CARGO_FEATURE_BUNDLED").is_some() || !pkg_config(wanted) {
        build_bundled();
    }
}

fn fail(text: &str) -> ! {
    eprintln!("libpeft-sys: {text}");
    exit(1)
}

/// The system libraries that the archive needs.
fn link_system() {
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os != "windows" {
        println!("cargo:rustc-link-lib=m");
        if os != "macos" && os != "ios" {
            println!("cargo:rustc-link-lib=pthread");
        }
    }
}

// ---- a folder that the caller names ------------------------------------------------------------------------------

fn link_folder(dir: &Path, wanted: Option<bool>) {
    let has = |folder: &Path, names: &[&str]| names.iter().any(|n| folder.join(n).is_file());
    let archives = ["libpeft.a", "peft.lib"];
    let shared = ["libpeft.so", "libpeft.dylib", "libpeft.dll.a", "peft.dll", "libpeft.dll"];
    for folder in [dir.to_path_buf(), dir.join("lib")] {
        let archive = has(&folder, &archives);
        let kind = match wanted {
            Some(true) | None if archive => "static",
            Some(false) | None if has(&folder, &shared) => "dylib",
            _ => continue,
        };
        println!("cargo:rustc-link-search=native={}", folder.display());
        println!("cargo:rustc-link-lib={kind}={NAME}");
        for name in archives.iter().chain(&shared) {
            if folder.join(name).exists() {
                println!("cargo:rerun-if-changed={}", folder.join(name).display());
            }
        }
        if kind == "static" {
            link_system();
        }
        return;
    }
    let which = wanted.map_or("", |s| if s { " static" } else { " shared" });
    fail(&format!("LIBPEFT_DIR is {}, and neither it nor its lib/ has a{which} library", dir.display()));
}

// ---- pkg-config ----------------------------------------------------------------------------------------------------

fn pkg_config(wanted: Option<bool>) -> bool {
    if env::var_os("PKG_CONFIG_ALLOW_CROSS").is_none() && env::var("HOST").ok() != env::var("TARGET").ok() {
        return false;
    }
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let version = env!("CARGO_PKG_VERSION");
    let next = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let mut command = Command::new(program);
    command.args(["--libs", "--cflags", "--print-errors"]);
    if wanted == Some(true) {
        command.arg("--static");
    }
    // Before 1.0 another minor version is another interface.
    command.arg(format!("libpeft >= {version}")).arg(format!("libpeft < {}", after(&next)));
    let out = match command.output() {
        Ok(out) if out.status.success() => out,
        _ => return false,
    };
    for word in String::from_utf8_lossy(&out.stdout).split_whitespace() {
        if let Some(folder) = word.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(name) = word.strip_prefix("-l") {
            let kind = if name == NAME && wanted == Some(true) { "static=" } else { "" };
            println!("cargo:rustc-link-lib={kind}{name}");
        } else if let Some(folder) = word.strip_prefix("-I") {
            println!("cargo:include={folder}");
        }
    }
    true
}

/// "0.1" -> "0.2"
fn after(version: &str) -> String {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    format!("{major}.{}", minor.parse::<u32>().unwrap_or(0) + 1)
}

// ---- the C sources --------------------------------------------------------------------------------------------------

/// A variable of the environment, that of the target before the general one.
fn setting(name: &str) -> Option<String> {
    let target = env::var("TARGET").unwrap_or_default();
    let names =
        [format!("{name}_{target}"), format!("{name}_{}", target.replace('-', "_")), name.to_string()];
    for name in &names {
        println!("cargo:rerun-if-env-changed={name}");
    }
    names.iter().find_map(|n| env::var(n).ok())
}

fn sources() -> PathBuf {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    // Where links do not exist (a checkout on Windows), the repository's own folders.
    let places = [here.join("native"), here.join("../../..")];
    match places.iter().find(|p| p.join("lib/sources.txt").is_file()) {
        Some(place) => place.clone(),
        None => fail("no pkg-config package \"libpeft\", no LIBPEFT_DIR, and no C sources in native/"),
    }
}

fn build_bundled() {
    let root = sources();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let list = fs::read_to_string(root.join("lib/sources.txt"))
        .unwrap_or_else(|e| fail(&format!("sources.txt: {e}")));
    let files: Vec<&str> = list.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let objects: Vec<PathBuf> =
        files.iter().map(|f| out.join(f.replace('/', "-")).with_extension("o")).collect();
    println!("cargo:rerun-if-changed={}", root.join("lib").display());
    println!("cargo:rerun-if-changed={}", root.join("include").display());
    let cc = setting("CC").unwrap_or_else(|| "cc".to_string());
    let flags = setting("CFLAGS").unwrap_or_default();
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse::<usize>().ok()).unwrap_or(1).max(1);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs.min(files.len()) {
            scope.spawn(|| loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                match files.get(i) {
                    Some(file) => compile(&cc, &flags, &root, file, &objects[i]),
                    None => return,
                }
            });
        }
    });
    archive(&out.join("libpeft.a"), &objects);
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static={NAME}");
    println!("cargo:include={}", root.join("include").display());
    link_system();
}

/// One object, with the flags of the library's Makefile. The bits of its results hang on -ffp-contract=off.
fn compile(cc: &str, flags: &str, root: &Path, file: &str, object: &Path) {
    let mut words = cc.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    command.args(words).args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-D_DEFAULT_SOURCE", "-O2"]);
    command.args(["-ffp-contract=off", "-fvisibility=hidden", "-DPEFT_BUILD", "-DPEFT_STATIC"]);
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("windows") {
        command.args(["-fPIC", "-pthread"]);
    }
    if env::var("DEBUG").as_deref() == Ok("true") {
        command.arg("-g");
    }
    command.arg(format!("-I{}", root.join("include").display()));
    command.arg(format!("-I{}", root.join("lib").display()));
    command.args(flags.split_whitespace()).arg("-c").arg("-o").arg(object).arg(root.join("lib").join(file));
    run(&mut command);
}

fn archive(path: &Path, objects: &[PathBuf]) {
    let ar = setting("AR").unwrap_or_else(|| "ar".to_string());
    let _ = fs::remove_file(path);
    run(Command::new(ar).arg("rcs").arg(path).args(objects));
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{command:?}: {status}")),
        Err(e) => fail(&format!("{command:?}: {e}")),
    }
}
