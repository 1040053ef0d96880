import os, resource, sys
os.unlink(__file__)
with open("program.py", encoding="utf-8") as file:
    source = file.read()
os.unlink("program.py")
# here, and not before Python starts: the program that starts it may be larger
resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
def run(source, write, leave, end):
    exec(compile(source, "program.py", "exec"), {})
    try:
        sys.stdout.flush()
    finally:
        write(1, end)
        leave(0)
os.write(1, b"BEGIN")
run(source, os.write, os._exit, b"END")
