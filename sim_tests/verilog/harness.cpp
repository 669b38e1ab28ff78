// Runs a script on the simulated processor, without any other program: reset, then its lines in order.
//
//   Vtop SCRIPT RESULTS [CYCLES] [+plusargs]
//
//   timing NAME VALUE    set an input timing_NAME
//   write ADDRESS DATA   AXI4-Lite write
//   run                  wait for the interrupt, measuring the time
//   read ADDRESS         AXI4-Lite read; its data goes to RESULTS, one line each, decimal
//   wait CYCLES
//   reset                two cycles of reset
//   fault NAME VALUE     set an input fault_NAME
//   access WRITES ADDRESS DATA STROBE SKEW READS READ_ADDRESS LATER HOLD
//                        writes and reads in any way that AXI4-Lite allows; three numbers go to RESULTS
//
// RESULTS ends with "seconds S" of the waiting. Exit status 1: a refused access, or no interrupt within CYCLES.
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

// More than any access to this slave takes; one that hangs is a failure.
constexpr int ACCESS_CYCLES = 1000;

class Harness {
public:
    // The top has no name, so that paths in waves begin with the module, as they do under cocotb.
    explicit Harness(VerilatedContext& context) : context_(context), top_(new Vtop(&context, "")) {
#if VM_TRACE
        const char* wave = context.commandArgsPlusMatch("wave_file=");
        if (*wave) {
            context.traceEverOn(true);
            wave_.reset(new VerilatedVcdC);
            top_->trace(wave_.get(), 99);
            wave_->open(wave + std::strlen("+wave_file="));
        }
#endif
        top_->fault_enable = top_->fault_address = top_->fault_stall = 0;
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_arvalid = 0;
        top_->s_axi_bready = top_->s_axi_rready = 0;
        reset();
    }

    ~Harness() {
        top_->final();
#if VM_TRACE
        if (wave_) wave_->close();
#endif
    }

    void reset() {
        top_->rst = 1;
        cycle();
        cycle();
        top_->rst = 0;
    }

    void cycle() {
        top_->clk = 0;
        step();
        top_->clk = 1;
        step();
    }

    bool write(uint32_t address, uint32_t data) {
        top_->s_axi_awaddr = address;
        top_->s_axi_wdata = data;
        top_->s_axi_wstrb = 15;
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_bready = 1;
        top_->clk = 0;
        step();
        // This slave takes address and data together.
        if (!wait_for(top_->s_axi_awready)) return false;
        cycle_to_low();
        top_->s_axi_awvalid = top_->s_axi_wvalid = 0;
        top_->eval();
        if (!wait_for(top_->s_axi_bvalid)) return false;
        const bool okay = top_->s_axi_bresp == 0;
        cycle_to_low();
        top_->s_axi_bready = 0;
        return okay;
    }

    bool read(uint32_t address, uint32_t& data) {
        top_->s_axi_araddr = address;
        top_->s_axi_arvalid = top_->s_axi_rready = 1;
        top_->clk = 0;
        step();
        if (!wait_for(top_->s_axi_arready)) return false;
        cycle_to_low();
        top_->s_axi_arvalid = 0;
        top_->eval();
        if (!wait_for(top_->s_axi_rvalid)) return false;
        data = top_->s_axi_rdata;
        const bool okay = top_->s_axi_rresp == 0;
        cycle_to_low();
        top_->s_axi_rready = 0;
        return okay;
    }

    // Accesses as any master may make them, and what the slave answered, in numbers: all responses, the sum of what
    // was read, and a digest of all outputs in every cycle. `writes` writes, of data that counts up, are offered as
    // soon as the slave takes them, data `skew` cycles behind the first address (before it if negative); beside them
    // `reads` reads from cycle `later` on; each response is left waiting for `hold` cycles.
    struct Access {
        unsigned writes;
        uint32_t address, data, strobe;
        int skew;
        unsigned reads;
        uint32_t read_address;
        int later, hold;
    };

    bool access(const Access& wanted, std::FILE* results) {
        unsigned addresses = wanted.writes, words = wanted.writes, written = wanted.writes;
        unsigned asked = wanted.reads, read = wanted.reads;
        int write_held = 0, read_held = 0;
        uint32_t digest = 2166136261u, sum = 0, responses = 0;
        const int first = wanted.skew < 0 ? -wanted.skew : 0;
        for (int number = 0; written || read; ++number) {
            if (number == ACCESS_CYCLES) return false;
            top_->s_axi_awaddr = wanted.address;
            top_->s_axi_wdata = wanted.data + wanted.writes - words;
            top_->s_axi_wstrb = wanted.strobe;
            top_->s_axi_araddr = wanted.read_address;
            top_->s_axi_awvalid = addresses && number >= first;
            top_->s_axi_wvalid = words && number >= first + wanted.skew;
            top_->s_axi_arvalid = asked && number >= wanted.later;
            top_->s_axi_bready = write_held == wanted.hold;
            top_->s_axi_rready = read_held == wanted.hold;
            top_->clk = 0;
            step();
            const uint32_t outputs[] = {
                static_cast<uint32_t>(top_->s_axi_awready | top_->s_axi_wready << 1 | top_->s_axi_arready << 2 |
                                      top_->s_axi_bvalid << 3 | top_->s_axi_rvalid << 4),
                static_cast<uint32_t>(top_->s_axi_bvalid ? top_->s_axi_bresp : 0),
                static_cast<uint32_t>(top_->s_axi_rvalid ? top_->s_axi_rresp : 0),
                static_cast<uint32_t>(top_->s_axi_rvalid ? top_->s_axi_rdata : 0),
            };
            for (const uint32_t output : outputs) digest = (digest ^ output) * 16777619u;
            if (top_->s_axi_awvalid && top_->s_axi_awready) --addresses;
            if (top_->s_axi_wvalid && top_->s_axi_wready) --words;
            if (top_->s_axi_arvalid && top_->s_axi_arready) --asked;
            if (top_->s_axi_bvalid && written) {
                responses |= outputs[1];
                written -= top_->s_axi_bready;
                write_held = top_->s_axi_bready ? 0 : write_held + 1;
            }
            if (top_->s_axi_rvalid && read) {
                responses |= outputs[2] << 2;
                sum += top_->s_axi_rready ? outputs[3] : 0;
                read -= top_->s_axi_rready;
                read_held = top_->s_axi_rready ? 0 : read_held + 1;
            }
            cycle_to_low();
        }
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_arvalid = 0;
        top_->s_axi_bready = top_->s_axi_rready = 0;
        std::fprintf(results, "%" PRIu32 "\n%" PRIu32 "\n%" PRIu32 "\n", responses, sum, digest);
        return true;
    }

    bool fault(const std::string& name, uint64_t value) {
        if (name == "enable") {
            top_->fault_enable = value;
        } else if (name == "address") {
            top_->fault_address = value;
        } else if (name == "stall") {
            top_->fault_stall = value;
        } else {
            return false;
        }
        return true;
    }

    // False if the interrupt did not come.
    bool run(uint64_t cycles) {
        const auto begin = std::chrono::steady_clock::now();
        while (!top_->irq && cycles != 0 && !context_.gotFinish()) {
            cycle();
            --cycles;
        }
        seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return top_->irq;
    }

    bool timing(const std::string& name, uint64_t value) {
#define TIMING(field) \
    if (name == #field) { \
        top_->timing_##field = value; \
        return true; \
    }
        TIMING(read_latency)
        TIMING(write_latency)
        TIMING(activate)
        TIMING(turnaround)
        TIMING(refresh_interval)
        TIMING(refresh_cycles)
        TIMING(beat_numerator)
        TIMING(beat_denominator)
        TIMING(bank_bits)
        TIMING(row_bits)
#undef TIMING
        return false;
    }

    double seconds() const { return seconds_; }

private:
    void step() {
        top_->eval();
        context_.timeInc(1);
#if VM_TRACE
        if (wave_) wave_->dump(context_.time());
#endif
    }

    // From the low phase of one cycle to that of the next, so that combinational outputs can be looked at.
    void cycle_to_low() {
        top_->clk = 1;
        step();
        top_->clk = 0;
        step();
    }

    bool wait_for(const CData& signal) {
        for (int number = 0; !signal; ++number) {
            if (number == ACCESS_CYCLES) return false;
            cycle_to_low();
        }
        return true;
    }

    VerilatedContext& context_;
    std::unique_ptr<Vtop> top_;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> wave_;
#endif
    double seconds_ = 0;
};

int play(Harness& harness, std::FILE* script, std::FILE* results, uint64_t cycles) {
    char line[256];
    while (std::fgets(line, sizeof line, script)) {
        char verb[16] = "", name[64] = "";
        unsigned long long first = 0, second = 0;
        bool okay = false;
        Harness::Access access;
        if (std::sscanf(line, "access %u %" SCNu32 " %" SCNu32 " %" SCNu32 " %d %u %" SCNu32 " %d %d", &access.writes,
                        &access.address, &access.data, &access.strobe, &access.skew, &access.reads,
                        &access.read_address, &access.later, &access.hold) == 9) {
            okay = harness.access(access, results);
        } else if (std::sscanf(line, "fault %63s %llu", name, &first) == 2) {
            okay = harness.fault(name, first);
        } else if (std::sscanf(line, "wait %llu", &first) == 1) {
            while (first--) harness.cycle();
            okay = true;
        } else if (std::sscanf(line, "timing %63s %llu", name, &first) == 2) {
            okay = harness.timing(name, first);
        } else if (std::sscanf(line, "write %llu %llu", &first, &second) == 2) {
            okay = harness.write(first, second);
        } else if (std::sscanf(line, "read %llu", &first) == 1) {
            uint32_t data = 0;
            okay = harness.read(first, data);
            std::fprintf(results, "%" PRIu32 "\n", data);
        } else if (std::sscanf(line, "%15s", verb) == 1 && std::strcmp(verb, "run") == 0) {
            okay = harness.run(cycles);
        } else if (std::strcmp(verb, "reset") == 0) {
            harness.reset();
            okay = true;
        }
        if (!okay) {
            std::fprintf(stderr, "failed: %s", line);
            return 1;
        }
    }
    std::fprintf(results, "seconds %.9f\n", harness.seconds());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s SCRIPT RESULTS [CYCLES] [+plusargs]\n", argv[0]);
        return 2;
    }
    std::FILE* script = std::fopen(argv[1], "r");
    std::FILE* results = std::fopen(argv[2], "w");
    if (!script || !results) {
        std::perror(script ? argv[2] : argv[1]);
        return 2;
    }
    uint64_t cycles = UINT64_MAX;
    if (argc > 3 && argv[3][0] != '+') cycles = std::strtoull(argv[3], nullptr, 10);
    int status;
    {
        Harness harness(context);
        status = play(harness, script, results, cycles);
    }
    std::fclose(script);
    std::fclose(results);
    return status;
}
