//! Compiles proto/ for the gRPC edge, in Rust alone: no protoc is needed.

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    println!("cargo::rerun-if-changed=build.rs");
    compile()
}

#[cfg(feature = "grpc")]
fn compile() -> Outcome {
    println!("cargo::rerun-if-changed=proto");
    let compiler = compiled("nearhit/v1/cache.proto")?;
    // Reflection serves what is compiled here.
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(std::path::Path::new(&out).join("nearhit.v1.bin"), compiler.encode_file_descriptor_set())?;
    // Maps as the API's types have them. Comments stand in the proto file: rustdoc would read them as Markdown.
    let builder = || {
        let builder = tonic_prost_build::configure().build_client(false).build_transport(false);
        let builder = builder.codec_path("crate::server::grpc::codec::MessageCodec");
        builder.btree_map(".").disable_comments(["."])
    };
    builder().compile_fds(compiler.file_descriptor_set())?;
    // Bodies as the rest of the program has them.
    let envoy = compiled("envoy/service/ext_proc/v3/external_processor.proto")?;
    builder().bytes(".").compile_fds(envoy.file_descriptor_set())?;
    Ok(())
}

#[cfg(feature = "grpc")]
fn compiled(file: &str) -> Result<protox::Compiler, protox::Error> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file(file)?;
    Ok(compiler)
}

#[cfg(not(feature = "grpc"))]
fn compile() -> Outcome {
    Ok(())
}
